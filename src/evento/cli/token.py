"""``evento token``: the tokens with which bundles connect to a server."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from evento.cli.arguments import Verbs, add_json, add_verb, add_verb_group, text
from evento.cli.errors import DONE
from evento.cli.output import Output, note, printable
from evento.cli.server_settings import needing_extra, settings_of

if TYPE_CHECKING:
    from evento.server.tokens import Token, TokenFile

__all__ = ["add_token"]


def add_token(verbs: Verbs) -> None:
    """Declare ``evento token``."""
    group = add_verb_group(verbs, "token", summary="make, list and revoke the tokens of bundles")
    create = add_verb(
        group,
        "create",
        _create,
        summary="make a token for a bundle and print its secret, once",
        detail="Make a token for BUNDLE and print its secret, which is kept nowhere. From the first token on, "
        "whoever has none is refused. A running server follows within about a second.",
        example="evento token create shop --serves PlaceOrderCommand OrderQuery",
    )
    create.add_argument("bundle", type=text, metavar="BUNDLE", help="the bundle_id")
    create.add_argument(
        "--serves",
        type=text,
        nargs="+",
        metavar="NAME",
        help="the only commands and queries that it may handle; other bundles may then not handle them",
    )
    create.add_argument("--replace", action="store_true", help="give up the token that the bundle has")
    _add_place(create)
    listing = add_verb(
        group,
        "list",
        _list,
        summary="print which bundles have tokens",
        detail="Print which bundles have tokens, since when, and what they may handle.",
        example="evento token list",
    )
    add_json(listing)
    _add_place(listing)
    revoke = add_verb(
        group,
        "revoke",
        _revoke,
        summary="give up a bundle's token: who uses it is cut off",
        detail="Give up a bundle's token. A running server cuts off who uses it within about a second.",
        example="evento token revoke shop",
    )
    revoke.add_argument("bundle", type=text, metavar="BUNDLE", help="the bundle_id")
    _add_place(revoke)


def _add_place(verb: argparse.ArgumentParser) -> None:
    place = verb.add_argument_group("where the tokens are, as 'evento server' is told")
    place.add_argument("--config", type=Path, metavar="FILE", help="the server's TOML file ($EVENTO_ES_CONFIG)")
    place.add_argument("--data", type=text, metavar="PATH", help="the server's data folder (default: evento-data)")
    place.add_argument("--tokens", type=text, metavar="PATH", help="the file itself (default: DATA/tokens.json)")


def _file(arguments: argparse.Namespace) -> TokenFile:
    with needing_extra():
        from evento.server.tokens import TokenFile

    given = {name: value for name in ("data", "tokens") if (value := getattr(arguments, name)) is not None}
    return TokenFile(settings_of(given, environ=os.environ, file=arguments.config).token_file)


def _create(arguments: argparse.Namespace) -> int:
    file = _file(arguments)
    first = file.read() is None
    with needing_extra():
        secret = file.create(arguments.bundle, serves=arguments.serves, replace=arguments.replace)
    Output().line(secret)
    note(f"the token of {printable(arguments.bundle)}: give it to its process as EVENTO_TOKEN; it is not shown again")
    if first:
        note(f"{file.path} is new: a server that uses it refuses from now on whoever has no token")
    return DONE


def _list(arguments: argparse.Namespace) -> int:
    file = _file(arguments)
    tokens = file.read()
    output = Output(json=arguments.json)
    if output.json:
        for token in tokens or ():
            output.object({"bundle": token.bundle, "serves": token.serves, "created": token.created})
        return DONE
    if tokens is None:
        note(f"there is no file {file.path}: bundles need no tokens")
    for token in tokens or ():
        output.line(_line(token))
    return DONE


def _line(token: Token) -> str:
    serves = "all names that no other token reserves" if token.serves is None else ", ".join(token.serves)
    return printable(f"{token.bundle}  since {token.created:%Y-%m-%d %H:%M}Z  handles {serves}")


def _revoke(arguments: argparse.Namespace) -> int:
    file = _file(arguments)
    file.revoke(arguments.bundle)
    note(f"revoked: {printable(arguments.bundle)}")
    return DONE
