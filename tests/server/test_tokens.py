"""The file of tokens: what is kept, who may read it, and how it changes."""

import stat
from multiprocessing import get_context
from pathlib import Path

import bcrypt
import pytest

from evento.errors import NotFound
from evento.server import ConfigurationError, ServerError
from evento.server.credentials import Credentials
from evento.server.tokens import TokenFile


@pytest.fixture
def file(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "data" / "tokens.json")


def test_a_token_is_kept_as_a_salted_hash_that_its_secret_fits(file: TokenFile) -> None:
    secret = file.create("shop", serves=["PlaceOrderCommand", "OrderQuery", "OrderQuery"])

    [token] = file.read() or ()
    assert (token.bundle, token.serves) == ("shop", ("OrderQuery", "PlaceOrderCommand"))
    assert bcrypt.checkpw(secret.encode(), token.hash.encode())
    assert secret not in file.path.read_text()
    assert len(secret) >= 43


def test_the_file_is_its_owners_alone(file: TokenFile) -> None:
    file.create("shop")

    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    file.path.chmod(0o640)
    with pytest.raises(ServerError, match=r"others may read it \(mode 640\): chmod 600"):
        file.read()


def test_without_a_file_there_are_no_tokens_and_an_empty_file_is_a_file(file: TokenFile) -> None:
    assert file.read() is None
    file.create("shop")
    file.revoke("shop")

    assert file.read() == ()


def test_a_second_token_of_a_bundle_must_be_asked_for(file: TokenFile) -> None:
    first = file.create("shop")
    with pytest.raises(ConfigurationError, match="--replace"):
        file.create("shop")
    second = file.create("shop", replace=True)

    [token] = file.read() or ()
    assert first != second
    assert bcrypt.checkpw(second.encode(), token.hash.encode())


def test_a_name_is_reserved_for_one_bundle(file: TokenFile) -> None:
    file.create("shop", serves=["PlaceOrderCommand"])

    with pytest.raises(ConfigurationError, match="'PlaceOrderCommand' is reserved by the token of 'shop'"):
        file.create("thief", serves=["PlaceOrderCommand"])
    assert [token.bundle for token in file.read() or ()] == ["shop"]


@pytest.mark.parametrize("bundle", ["evento-server", "evento-admin", "", "a\nb", "x" * 201])
def test_names_that_no_bundle_can_have_are_refused(file: TokenFile, bundle: str) -> None:
    with pytest.raises(ConfigurationError):
        file.create(bundle)
    assert file.read() is None


@pytest.mark.parametrize("name", ["PlaceOrderCommand,OrderQuery", "PlaceOrderCommand OrderQuery", "OrderQuery\t"])
def test_a_list_of_names_is_not_taken_for_one(file: TokenFile, name: str) -> None:
    with pytest.raises(ConfigurationError):
        file.create("shop", serves=[name])
    assert file.read() is None


def test_what_is_not_there_cannot_be_revoked(file: TokenFile) -> None:
    with pytest.raises(NotFound, match="there is no file"):
        file.revoke("shop")
    file.create("shop")
    with pytest.raises(NotFound, match="'depot' has no token"):
        file.revoke("depot")


@pytest.mark.parametrize("content", ["", "{}", '{"format":1,"tokens":[{"bundle":1}]}', '{"format":2,"tokens":[]}'])
def test_a_damaged_or_newer_file_is_refused(file: TokenFile, content: str) -> None:
    file.create("shop")
    file.path.write_text(content)

    with pytest.raises(ServerError, match=r"tokens\.json"):
        file.read()


def create(path: Path, bundle: str) -> None:
    TokenFile(path).create(bundle)


def test_processes_that_write_at_once_lose_no_token(file: TokenFile) -> None:
    bundles = [f"bundle-{number}" for number in range(4)]
    context = get_context("spawn")
    processes = [context.Process(target=create, args=(file.path, bundle)) for bundle in bundles]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [token.bundle for token in file.read() or ()] == bundles


def test_the_servers_own_secrets_are_made_once_and_shown_to_nobody(tmp_path: Path) -> None:
    made = Credentials.ensure(tmp_path / "data")

    assert Credentials.ensure(tmp_path / "data") == made == Credentials.load(tmp_path / "data")
    assert made.server not in repr(made)
    assert stat.S_IMODE(Credentials.path(tmp_path / "data").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    assert Credentials.load(tmp_path / "other") is None
