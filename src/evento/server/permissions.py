"""Who may do what on the subjects of a cluster: the permissions that NATS enforces for each user."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from evento.gateway.nats.subjects import QUEUE, Subjects, token
from evento.server.tokens import ADMIN_USER, SERVER_USER, Token

__all__ = ["STORE_OPERATIONS", "User", "admin_user", "bundle_users", "server_user"]

STORE_OPERATIONS: Final = (
    "append",
    "story",
    "fetch",
    "head",
    "identity",
    "snapshot",
    "lookup",
    "reject",
    "lock",
    "renew",
    "unlock",
    "search",
    "event",
    "info",
)
"""What bundles may ask the store for. The others (verify, purge) are for the terminal alone."""

_RESPONSES: Final = {"max": 2, "expires": "330s"}
"""A reply may be sent until the longest deadline of a request (300 s) and a margin have passed."""


@dataclass(frozen=True, slots=True)
class User:
    """A user of the gateway. ``password`` is a hash, or what stands for one.

    ``responds``: may answer each request that it received, once, wherever the answer is wanted: also where nothing was
    asked. Only the number of a request, which nobody can guess, tells answers from forgeries.
    """

    name: str
    password: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    denied: tuple[str, ...] = ()
    responds: bool = False

    def config(self) -> dict[str, Any]:
        """Return what ``nats-server`` must be told."""
        permissions: dict[str, Any] = {
            "publish": {"allow": list(self.publish)},
            "subscribe": {"allow": list(self.subscribe), "deny": list(self.denied)},
        }
        if self.responds:
            permissions["allow_responses"] = _RESPONSES
        return {"user": self.name, "password": self.password, "permissions": permissions}


def bundle_users(subjects: Subjects, tokens: Iterable[Token]) -> list[User]:
    """Return the users of the bundles that have tokens.

    A bundle handles the names that its token lists; without a list, those that no other token lists.
    """
    known = list(tokens)
    reserved = {name for token in known for name in token.serves or ()}
    return [_bundle_user(subjects, each, reserved) for each in known]


def _bundle_user(subjects: Subjects, of: Token, reserved: Iterable[str]) -> User:
    prefix, bundle = subjects.prefix, token(of.bundle)
    if of.serves is None:
        # With the queue group's name: a plain subscription would read along what is meant for one handler.
        serves = [f"{prefix}.{kind}.* {QUEUE}" for kind in ("command", "query")]
        serves += [f"{prefix}.inquiry.{kind}.*" for kind in ("command", "query")]
        denied = [
            subject
            for name in sorted(reserved)
            for subject in (*_requests(subjects, name), *_inquiries(subjects, name))
        ]
    else:
        serves = [f"{subject} {QUEUE}" for name in of.serves for subject in _requests(subjects, name)]
        serves += [subject for name in of.serves for subject in _inquiries(subjects, name)]
        denied = []
    return User(
        of.bundle,
        of.hash,
        publish=(
            f"{prefix}.command.*",
            f"{prefix}.query.*",
            f"{prefix}.inquiry.*.*",
            *(subjects.store(operation) for operation in STORE_OPERATIONS),
            subjects.registry("catalogue"),  # not "view": which instances there are concerns the terminal alone
            f"{prefix}.registry.{bundle}.*",  # the subject proves who registers
            f"{prefix}.telemetry.{bundle}.>",
        ),
        subscribe=(
            *serves,
            f"{prefix}.inbox.{bundle}.>",
            f"{prefix}.instance.{bundle}.>",
            subjects.head,
        ),
        denied=tuple(denied),
        responds=True,
    )


def server_user(subjects: Subjects, password: str) -> User:
    """Return the user of the servers themselves."""
    prefix = subjects.prefix
    return User(
        SERVER_USER,
        password,
        publish=(
            f"{prefix}.inbox.>",
            f"{prefix}.instance.>",
            f"{prefix}.store.>",
            f"{prefix}.registry.>",
            subjects.head,
        ),
        subscribe=(
            f"{prefix}.store.>",
            f"{prefix}.registry.>",
            f"{prefix}.telemetry.>",
            f"{prefix}.inbox.{SERVER_USER}.>",
            subjects.head,
        ),
    )


def admin_user(subjects: Subjects, password: str) -> User:
    """Return the user of the terminal."""
    prefix = subjects.prefix
    return User(
        ADMIN_USER,
        password,
        publish=(f"{prefix}.store.>", f"{prefix}.registry.>", f"{prefix}.instance.>"),
        subscribe=(f"{prefix}.inbox.{ADMIN_USER}.>", subjects.head),
    )


def _requests(subjects: Subjects, name: str) -> tuple[str, str]:
    return subjects.command(name), subjects.query(name)


def _inquiries(subjects: Subjects, name: str) -> tuple[str, str]:
    return subjects.inquiry("command", name), subjects.inquiry("query", name)
