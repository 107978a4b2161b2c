"""``evento token`` as a process of its own."""

from pathlib import Path

from evento.server.tokens import TokenFile


def test_create_prints_the_secret_once_and_list_shows_what_it_allows(shell, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    made = shell("token", "create", "shop", "--serves", "PlaceOrderCommand", "OrderQuery")
    shell("token", "create", "depot")

    assert made.code == 0
    secret = made.out.strip()
    assert len(secret) >= 43
    assert secret not in made.err
    assert "a server that uses it refuses from now on" in made.err
    [of_depot, of_shop] = shell("token", "list").out.splitlines()
    assert of_depot.endswith("handles all names that no other token reserves")
    assert of_shop.endswith("handles OrderQuery, PlaceOrderCommand")
    assert [line["bundle"] for line in shell("token", "list", "--json").objects] == ["depot", "shop"]
    assert TokenFile(tmp_path / "evento-data" / "tokens.json").read()


def test_revoke_removes_and_says_when_there_is_none(shell, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    shell("token", "create", "shop", "--tokens", "t.json")
    revoked = shell("token", "revoke", "shop", "--tokens", "t.json")
    again = shell("token", "revoke", "shop", "--tokens", "t.json")

    assert (revoked.code, revoked.err) == (0, "revoked: shop\n")
    assert (again.code, again.err) == (1, "evento: 'shop' has no token in t.json\n")
    assert TokenFile(tmp_path / "t.json").read() == ()


def test_a_wrong_configuration_is_wrong_use(shell, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "e.toml").write_text("[es]\ntoken = 'x'\n")

    result = shell("token", "list", "--config", "e.toml")

    assert result.code == 2
    assert "there is no setting 'token' (e.toml line 2): did you mean 'tokens'?" in result.err


def test_a_file_that_others_may_read_is_refused(shell, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    shell("token", "create", "shop", "--tokens", "t.json")
    (tmp_path / "t.json").chmod(0o644)

    result = shell("token", "create", "depot", "--tokens", "t.json")

    assert (result.code, result.out) == (1, "")
    assert result.err == "evento: t.json holds secrets and others may read it (mode 644): chmod 600 t.json\n"
