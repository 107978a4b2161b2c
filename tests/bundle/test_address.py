"""The ``server`` of a bundle: one address or several."""

from __future__ import annotations

from pathlib import Path

import pytest

from evento.bundle.address import ClusterServers, EmbeddedServer, parse_server
from evento.errors import DefinitionError


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("nats://a", ("nats://a:3030",)),
        ("nats://a:4222,nats://b:3031", ("nats://a:4222", "nats://b:3031")),
        ("nats://a:3030,b:3031", ("nats://a:3030", "nats://b:3031")),
        ("nats://a, b ,[::1]:9", ("nats://a:3030", "nats://b:3030", "nats://[::1]:9")),
        ("tls://a,b:3031", ("tls://a:3030", "tls://b:3031")),
    ],
)
def test_servers_are_named_with_commas_between(text: str, urls: tuple[str, ...]) -> None:
    assert parse_server(text) == ClusterServers(urls)


@pytest.mark.parametrize(
    "text", ["nats://", "nats://a,", "nats://,b", "nats:a:3030", "nats://a,http://b", "nats://a,b/x", "nats://a:port"]
)
def test_what_is_no_list_of_servers_is_refused(text: str) -> None:
    with pytest.raises(DefinitionError, match=r"no list of servers: write nats://HOST:3030,nats://HOST2:3030"):
        parse_server(text)


def test_a_secret_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(DefinitionError, match="the token goes into token=") as caught:
        parse_server("nats://a,user:hunter2@b")
    assert "hunter2" not in str(caught.value)


def test_without_an_address_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVENTO_SERVER", raising=False)
    assert parse_server(None) == EmbeddedServer(None)
    monkeypatch.setenv("EVENTO_SERVER", "embedded:shop.db")
    assert parse_server(None) == EmbeddedServer(Path("shop.db").absolute())
    monkeypatch.setenv("EVENTO_SERVER", "nats://a")
    assert parse_server(None) == ClusterServers(("nats://a:3030",))
