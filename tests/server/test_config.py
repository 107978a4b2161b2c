"""Where settings come from, which goes first, and what is refused."""

from pathlib import Path

import pytest

from evento.server import ConfigurationError, ServerSettings
from evento.server.config import read_settings, sample
from evento.server.originals import GONE, RENAMED
from evento.server.settings import GROUPS, keys
from evento.server.values import Address


def file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "evento.toml"
    path.write_text(text)
    return path


def refused(**sources: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_settings(**sources)  # type: ignore[arg-type]
    return str(caught.value)


def test_without_any_source_the_defaults_hold() -> None:
    settings = read_settings()

    assert settings == ServerSettings()
    assert (str(settings.http), str(settings.gateway)) == ("127.0.0.1:3000", "127.0.0.1:3030")
    assert settings.store_url == "sqlite:evento-data/evento.db"
    assert settings.token_file == Path("evento-data/tokens.json")


def test_command_line_before_environment_before_file(tmp_path: Path) -> None:
    path = file(tmp_path, '[es]\nhttp = "a:1"\ngateway = "a:2"\ncluster_name = "of-file"\n')

    settings = read_settings({"http": "c:1"}, environ={"EVENTO_ES_HTTP": "b:1", "EVENTO_ES_GATEWAY": "b:2"}, file=path)

    assert settings.http == Address("c", 1)
    assert settings.gateway == Address("b", 2)
    assert settings.cluster_name == "of-file"


def test_the_environment_names_the_file(tmp_path: Path) -> None:
    path = file(tmp_path, '[es]\ncluster_name = "shop"\n')

    assert read_settings(environ={"EVENTO_ES_CONFIG": str(path)}).cluster_name == "shop"


def test_an_empty_value_is_not_set() -> None:
    assert read_settings(environ={"EVENTO_ES_TLS_CERT": "", "EVENTO_ES_HTTP": ""}) == ServerSettings()


def test_the_sample_has_every_key_and_its_default(tmp_path: Path) -> None:
    names = {key.name for key in keys()}
    settings = [line.removeprefix("#") for line in sample().splitlines() if line[1:].partition(" ")[0] in names]

    assert len(settings) == len(names)
    assert read_settings(file=file(tmp_path, sample())) == ServerSettings()
    assert read_settings(file=file(tmp_path, "\n".join(["[es]", *settings]))) == ServerSettings()


def test_every_key_has_a_group_and_a_meaning() -> None:
    assert {key.group for key in keys()} == set(GROUPS)
    assert all(key.meaning for key in keys())


def test_an_unknown_key_of_a_file_is_named_with_its_line_and_the_nearest(tmp_path: Path) -> None:
    path = file(tmp_path, '[es]\n# a comment\ngatway = "127.0.0.1:1"\n')

    assert refused(file=path) == f"there is no setting 'gatway' ({path} line 3): did you mean 'gateway'?"


def test_an_unknown_variable_is_named_with_the_nearest() -> None:
    assert refused(environ={"EVENTO_ES_GATWAY": "x"}) == (
        "there is no setting 'EVENTO_ES_GATWAY' ($EVENTO_ES_GATWAY): did you mean 'EVENTO_ES_GATEWAY'?"
    )


def test_a_key_outside_its_table_is_told_where_it_belongs(tmp_path: Path) -> None:
    path = file(tmp_path, 'store = "sqlite:x.db"\n')

    assert refused(file=path) == f"'store' ({path} line 1) must stand in the table [es]"


def test_variables_of_others_are_left_alone() -> None:
    assert (
        read_settings(environ={"PATH": "/bin", "EVENTO_SERVER": "embedded:", "EVENTO_DEBUG": "1"}) == ServerSettings()
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [('[es]\nmode = "APES"\n', 2), ('[evento.es]\nmode = "APES"\n', 2), ('evento.es.mode = "APES"\n', 1)],
)
def test_the_mode_of_the_original_is_refused_with_its_reason(tmp_path: Path, text: str, line: int) -> None:
    message = refused(file=file(tmp_path, text))

    assert f"line {line}) is a key of the original Evento: the event store is consistent" in message
    assert "APES" in message


@pytest.mark.parametrize("original", sorted(GONE))
def test_what_the_original_had_is_refused_with_a_sentence(tmp_path: Path, original: str) -> None:
    assert GONE[original] in refused(file=file(tmp_path, f'{original} = "x"\n'))
    if original.startswith("evento_"):
        assert GONE[original] in refused(environ={original.upper(): "x"})


def test_renamed_keys_lead_to_settings() -> None:
    names = {key.name for key in keys()}

    assert set(RENAMED.values()) <= names
    assert "called 'cluster_name' here" in refused(environ={"evento_cluster_name": "x"})


@pytest.mark.parametrize(
    ("name", "value", "say"),
    [
        ("http", "3000", "write HOST:PORT"),
        ("http", "a:70000", "write HOST:PORT"),
        ("cluster_name", "a.b", "letters, digits"),
        ("payload_limit", "8 MB", "write bytes"),
        ("write_deadline", "0", "write seconds"),
        ("write_deadline", "nan", "write seconds"),
        ("fetch_concurrency", "0", "whole number"),
        ("log_level", "loud", "one of debug"),
        ("nats", "http://x", "write nats://"),
        ("nats", "nats://u:geheim@x:1", "without user and password"),
        ("insecure", "maybe", "true or false"),
    ],
)
def test_a_value_that_cannot_work_is_refused(name: str, value: str, say: str) -> None:
    message = refused(environ={f"EVENTO_ES_{name.upper()}": value})

    assert message.startswith(f"{name!r} ($EVENTO_ES_{name.upper()}): ")
    assert say in message


@pytest.mark.parametrize(
    ("options", "say"),
    [
        ({"tls_cert": "a.pem"}, "belong together"),
        ({"tls_ca": "a.pem"}, "switch on"),
        ({"cluster_routes": "nats://b:1"}, "needs 'cluster_listen'"),
        ({"nats": "nats://b:1", "cluster_listen": "a:1"}, "names another"),
        ({"nats": "nats://b:1", "max_connections": "7"}, "'max_connections' is for the NATS that this server starts"),
        ({"nats": "nats://b:1", "nats_server": "x"}, "'nats_server' is for the NATS that this server starts"),
        ({"nats": "nats://b:1", "tls_verify": "true", "tls_ca": "a.pem"}, "'tls_verify' is for the NATS"),
        ({"max_pending": "1MiB"}, "never fits"),
        ({"lease": "0.5"}, "at least 1 second"),
        ({"store_schema": "shop"}, "'store_schema' is for a 'store' in PostgreSQL"),
        ({"store": "mysql://x/y"}, "must be sqlite:PATH or postgresql://"),
        ({"store": "sqlite:///x"}, "plain path"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(options: dict[str, str], say: str) -> None:
    assert say in refused(options=options)


def test_a_secret_of_nodes_needs_a_place_where_they_come() -> None:
    assert "give both" in refused(environ={"EVENTO_ES_CLUSTER_SECRET": "s"})


def test_what_is_said_to_be_its_default_contradicts_nothing() -> None:
    defaults = {"max_connections": "1024", "tls_verify": "false", "store_schema": "evento", "lease": "1"}
    assert read_settings({"nats": "nats://b:1", "gateway": "0.0.0.0:3030", **defaults}).nats


def test_the_first_of_several_urls_says_how_the_others_are_reached() -> None:
    assert read_settings({"nats": "tls://a:4222, b:4222", "tls_ca": "ca.pem"}).nats == ("tls://a:4222", "tls://b:4222")
    assert read_settings({"nats": "a:4222,b:4222"}).nats == ("nats://a:4222", "nats://b:4222")


def test_a_nats_of_others_may_be_trusted_by_its_authority_alone() -> None:
    assert read_settings({"nats": "tls://b:4222", "tls_ca": "ca.pem"}).tls_ca == Path("ca.pem")


@pytest.mark.parametrize("url", ["postgresql://u:geheim@h/d", "postgresql://h/d?user=u&password=geheim"])
def test_a_password_on_the_command_line_is_refused_and_not_repeated(url: str) -> None:
    message = refused(options={"store": url})

    assert "EVENTO_ES_STORE" in message
    assert "geheim" not in message
    assert read_settings(environ={"EVENTO_ES_STORE": url}).store == url


def test_secrets_have_no_option_and_are_not_shown() -> None:
    secrets = [key for key in keys() if key.secret]

    assert [key.name for key in secrets] == ["metrics_token", "nats_password", "cluster_secret"]
    assert {key.option for key in secrets} == {""}
    settings = ServerSettings(**{key.name: "geheim" for key in secrets})  # type: ignore[arg-type]
    assert "geheim" not in repr(settings)


@pytest.mark.parametrize("text", ["[es", "es = 1\n"])
def test_a_file_that_is_not_a_configuration_is_refused(tmp_path: Path, text: str) -> None:
    assert "evento.toml" in refused(file=file(tmp_path, text))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refused(file=tmp_path / "none.toml")


def test_a_password_in_a_broken_store_url_is_not_shown(tmp_path: Path) -> None:
    assert "geheim" not in refused(environ={"EVENTO_ES_STORE": "mysql://u:geheim@h/d"})
    assert "geheim" not in refused(file=file(tmp_path, '[es]\nnats = "nats://u:geheim@h:1"\n'))
