"""The subjects of a cluster: who sends what where on NATS.

=====================================================  ==================  =======================================
subject                                                who serves          what
=====================================================  ==================  =======================================
``evento.<c>.command.<Payload>``, ``.query.<Payload>`` bundles, a queue    one enabled replica handles it
``evento.<c>.inquiry.<kind>.<Payload>``                bundles, each       which of these requests do you have?
``evento.<c>.store.<operation>``                       servers, a queue    the System State Store
``evento.<c>.registry.<operation>``                    servers, a queue    instances, catalogue
``evento.<c>.registry.<bundle>.<operation>``           servers, a queue    registration, heartbeats of that bundle
``evento.<c>.head``                                    servers publish     the new head of the store
``evento.<c>.telemetry.<bundle>.<instance>``           bundles publish     samples
``evento.<c>.instance.<bundle>.<instance>.<op>``       that instance       administration
``evento.<c>.inbox.<user>.<instance>.<n>``             that instance       replies
=====================================================  ==================  =======================================
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

__all__ = ["QUEUE", "Subjects", "token", "untoken"]

QUEUE = "evento"
"""The one queue group: of all who serve a subject, one gets a message."""

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


def token(text: str) -> str:
    """Return text as one token of a subject: letters, digits, ``_`` and ``-`` as they are, other bytes as ``%XX``."""
    data = text.encode()
    if not data:
        raise ValueError("a token of a subject cannot be empty")
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in data)


def untoken(text: str) -> str:
    """Return the text that :func:`token` was given.

    :raises ValueError: it is not UTF-8.
    """
    return unquote_to_bytes(text).decode()


class Subjects:
    """The subjects of one cluster.

    :param cluster: its name; several clusters may share one NATS.
    """

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster
        self.prefix = f"evento.{token(cluster)}"
        self.head = f"{self.prefix}.head"

    def request(self, kind: str, name: str) -> str:
        """Return where requests of a payload go; ``kind`` is "command" or "query"."""
        return f"{self.prefix}.{token(kind)}.{token(name)}"

    def command(self, name: str) -> str:
        """Return where commands of a name go."""
        return self.request("command", name)

    def query(self, name: str) -> str:
        """Return where queries of a name go."""
        return self.request("query", name)

    def inquiry(self, kind: str, name: str) -> str:
        """Return where all replicas are asked for requests of a payload that got no answer yet."""
        return f"{self.prefix}.inquiry.{token(kind)}.{token(name)}"

    def store(self, operation: str) -> str:
        """Return where an operation of the store is asked for."""
        return f"{self.prefix}.store.{token(operation)}"

    def registry(self, operation: str) -> str:
        """Return where an operation of the registry is asked for."""
        return f"{self.prefix}.registry.{token(operation)}"

    def registration(self, bundle: str, operation: str) -> str:
        """Return where a bundle registers, beats and leaves.

        NATS lets no other bundle send there, so the subject proves who asks. A reply subject proves nothing: it is not
        checked against what the sender may do.
        """
        return f"{self.prefix}.registry.{token(bundle)}.{token(operation)}"

    def registrations(self, operation: str) -> str:
        """Return what servers subscribe to hear an operation of :meth:`registration` from all bundles."""
        return f"{self.prefix}.registry.*.{token(operation)}"

    def registering(self, subject: str) -> str | None:
        """Return whose registration subject it is; None when it is none of this cluster."""
        prefix = f"{self.prefix}.registry."
        tokens = subject.removeprefix(prefix).split(".")
        if not subject.startswith(prefix) or len(tokens) != 2:
            return None
        try:
            return untoken(tokens[0])
        except ValueError:
            return None

    def telemetry(self, bundle: str, instance: str) -> str:
        """Return where an instance publishes its samples."""
        return f"{self.prefix}.telemetry.{token(bundle)}.{token(instance)}"

    def instance(self, bundle: str, instance: str, operation: str) -> str:
        """Return where one instance is asked for an operation."""
        return f"{self.prefix}.instance.{token(bundle)}.{token(instance)}.{token(operation)}"

    def inbox(self, user: str, instance: str) -> str:
        """Return the prefix of the reply subjects of one instance; ``.<n>`` follows it, which nobody can guess."""
        return f"{self.prefix}.inbox.{token(user)}.{token(instance)}"

    def inbox_owner(self, subject: str) -> tuple[str, str] | None:
        """Return user and instance whose inbox a reply subject is; None when it is none of this cluster.

        NATS lets nobody subscribe another user's inbox, but anybody may give another's as reply subject.
        """
        prefix = f"{self.prefix}.inbox."
        tokens = subject.removeprefix(prefix).split(".")
        if not subject.startswith(prefix) or len(tokens) != 3:
            return None
        try:
            return untoken(tokens[0]), untoken(tokens[1])
        except ValueError:
            return None
