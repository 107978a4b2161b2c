"""Who may connect follows the file of tokens, whatever fails meanwhile."""

from __future__ import annotations

import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from waiting import eventually

from evento.server import ServerError
from evento.server.nats_binary import find_nats_server
from evento.server.nats_config import nats_config
from evento.server.nats_server import NatsServer
from evento.server.settings import ServerSettings
from evento.server.tokens import TokenFile
from evento.server.users import TokenFollower, Users


@pytest.fixture
def tokens(settings: ServerSettings) -> TokenFile:
    tokens = TokenFile(settings.token_file)
    tokens.create("orders")
    return tokens


@contextmanager
def no_file_can_be_opened() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def bundles(users: Users) -> set[str]:
    return {user.name for user in users.allowed or ()} - {"evento-server", "evento-admin"}


def test_a_look_that_failed_is_made_again(settings: ServerSettings, tokens: TokenFile) -> None:
    users = Users(settings)
    tokens.create("web")
    with no_file_can_be_opened(), pytest.raises(ServerError, match="Too many open files"):
        users.changed()
    assert bundles(users) == {"orders"}

    assert users.changed()
    assert bundles(users) == {"orders", "web"}
    assert not users.changed()


def test_trouble_ends_when_the_file_is_again_what_it_was(settings: ServerSettings, tokens: TokenFile) -> None:
    users = Users(settings)
    for _ in range(2):
        settings.token_file.chmod(0o644)
        for _ in range(2):
            with pytest.raises(ServerError, match="others may read it"):
                users.changed()
        settings.token_file.chmod(0o600)
        assert not users.changed()


async def test_following_outlives_whatever_fails(
    settings: ServerSettings, tokens: TokenFile, caplog: pytest.LogCaptureFixture
) -> None:
    users = Users(settings)
    failures = 0
    is_broken = False

    def config() -> str:
        nonlocal failures
        if is_broken:
            failures += 1
            raise RuntimeError("nobody foresaw this")
        return nats_config(settings, name="one", gateway=settings.gateway, users=users.allowed, folder=settings.data)

    async with (
        NatsServer(find_nats_server(), folder=settings.data, config=config) as nats,
        TokenFollower(users, nats) as follower,
    ):
        is_broken = True
        tokens.revoke("orders")
        await eventually(lambda: failures >= 3)
        assert follower.trouble == "nobody foresaw this"

        is_broken = False
        await eventually(lambda: follower.trouble is None)
        assert '"orders"' not in (settings.data / "nats-server.conf").read_text()
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in told] == ["nats-server keeps the tokens that it has: nobody foresaw this"]
