"""Reading the settings: command line before environment (``EVENTO_ES_...``) before TOML (``[es]``) before default."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

from evento.server.errors import ConfigurationError
from evento.server.originals import GONE, RENAMED, normalised, verdict
from evento.server.settings import GROUPS, Key, ServerSettings, keys
from evento.server.values import PATH

__all__ = ["CONFIG_VARIABLE", "check_settings", "read_settings", "sample"]

CONFIG_VARIABLE: Final = "EVENTO_ES_CONFIG"
"""Names the TOML file when the command line does not."""

_PREFIX: Final = "EVENTO_ES_"
_KEYS: Final = {key.name: key for key in keys()}
_OF_OWN_NATS: Final = ("max_connections", "nats_server", "tls_verify")
"""Not ``gateway``, which the container's image sets for everybody."""
_SHORTEST_LEASE: Final = 1.0


class _Given(NamedTuple):
    """A value and where it stands, such as ``evento.toml line 3``."""

    value: Any
    where: str


def read_settings(
    options: Mapping[str, str] | None = None, *, environ: Mapping[str, str] | None = None, file: Path | None = None
) -> ServerSettings:
    """Return the settings from all sources, checked against each other.

    ``options`` are the command line's, as text by the settings' names. ``file`` defaults to ``$EVENTO_ES_CONFIG``.

    :raises ConfigurationError: a key is unknown or was one of the original, or a value cannot work.
    """
    environ = environ or {}
    if file is None and environ.get(CONFIG_VARIABLE):
        file = Path(environ[CONFIG_VARIABLE])
    given: dict[str, _Given] = {}
    if file is not None:
        given.update(_from_file(file))
    given.update(_from_environment(environ))
    given.update(_from_command_line(options or {}))
    settings = ServerSettings(**{name: _value(_KEYS[name], found) for name, found in given.items()})
    check_settings(settings)
    return settings


def check_settings(settings: ServerSettings) -> None:
    """Raise :class:`ConfigurationError` for settings that do not go together; looks at no file."""
    for message in _contradictions(settings):
        raise ConfigurationError(message)


def sample() -> str:
    """Return a TOML file with every setting: its meaning, and its default as a comment."""
    lines = [
        "# Settings of an Evento Server. What starts with # is the default, or an example where there is none.",
        "# The environment (EVENTO_ES_ and the key in capitals) goes before this file, the command line before both.",
        "# Seconds are numbers; sizes are bytes, or text such as '8MiB'.",
        "",
        "[es]",
    ]
    for group in GROUPS:
        lines += ["", f"## {group}"]
        for key in _KEYS.values():
            if key.group == group:
                lines += ["", f"# {_sentence(key)}", f"#{key.name} = {_toml(key)}"]
    return "\n".join(lines) + "\n"


# Sources ---------------------------------------------------------------------------------------------------------


def _from_command_line(options: Mapping[str, str]) -> Iterator[tuple[str, _Given]]:
    for name, value in options.items():
        if name == "store" and _has_password(value):
            raise ConfigurationError(
                "--store has a password, which every user of this machine can read in the list of processes: "
                "put the URL into $EVENTO_ES_STORE or into the file of --config"
            )
        yield name, _Given(value, _KEYS[name].option)


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, _Given]]:
    for variable, value in environ.items():
        if variable.upper().startswith(_PREFIX):
            if variable == CONFIG_VARIABLE:
                continue
            name = variable[len(_PREFIX) :].lower()
            if name not in _KEYS or variable != _KEYS[name].variable:
                raise _unknown(name, f"${variable}", known=[key.variable for key in _KEYS.values()], as_=variable)
            yield name, _Given(value, f"${variable}")
        elif variable.upper().startswith("EVENTO_") and normalised(variable) in {**GONE, **RENAMED}:
            raise _unknown(variable, f"${variable}", known=[], as_=variable)


def _from_file(file: Path) -> Iterator[tuple[str, _Given]]:
    try:
        text = file.read_text()
        table = tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(f"the configuration {file} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the configuration {file} is not TOML: {error}") from None
    own = table.pop("es", {})
    if not isinstance(own, dict):
        raise ConfigurationError(f"'es' in {file} must be a table: write [es] and the keys below it")
    for name, value in own.items():
        if name in _KEYS:
            yield name, _Given(value, _place(file, text, name))
        else:
            dotted = next(_flat({name: value}))
            raise _unknown(dotted, _place(file, text, name), known=list(_KEYS), as_=dotted)
    for dotted in _flat(table):
        where = _place(file, text, dotted.rpartition(".")[2])
        if dotted in _KEYS:
            raise ConfigurationError(f"{dotted!r} ({where}) must stand in the table [es]")
        raise _unknown(dotted, where, known=list(_KEYS), as_=dotted)


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in table.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def _place(file: Path, text: str, name: str) -> str:
    # tomllib tells no lines. A key that is found nowhere as written (quoted, say) is named without one.
    match = re.search(rf"^[ \t]*(?:[\w.\"'-]*\.)?[\"']?{re.escape(name)}[\"']?[ \t]*[=.]", text, re.MULTILINE)
    match = match or re.search(rf"^[ \t]*\[[^\]]*\b{re.escape(name)}\b", text, re.MULTILINE)
    return f"{file} line {text.count(chr(10), 0, match.start()) + 1}" if match else str(file)


def _unknown(name: str, where: str, *, known: list[str], as_: str) -> ConfigurationError:
    if (was := verdict(name)) is not None:
        return ConfigurationError(f"{as_!r} ({where}) is a key of the original Evento: {was}")
    near = difflib.get_close_matches(as_, known, n=1, cutoff=0.5)
    mend = f"did you mean {near[0]!r}?" if near else "'evento server --print-config' shows all keys"
    return ConfigurationError(f"there is no setting {as_!r} ({where}): {mend}")


def _value(key: Key, found: _Given) -> Any:
    if found.value == "":  # how an environment, such as a compose file's, says "not set"
        return ServerSettings.__dataclass_fields__[key.name].default
    try:
        value = key.kind.read(found.value)
    except ValueError as error:
        shown = "" if key.secret or _has_password(found.value) else f", not {found.value!r:.80}"
        raise ConfigurationError(f"{key.name!r} ({found.where}): {error}{shown}") from None
    return Path(value) if key.kind is PATH else value


# Checks ----------------------------------------------------------------------------------------------------------


def _contradictions(settings: ServerSettings) -> Iterator[str]:
    yield from _contradictory_tls(settings)
    yield from _contradictory_nats(settings)
    if settings.max_pending < settings.payload_limit + envelope_bytes(settings.payload_limit):
        yield "'max_pending' must be larger than 'payload_limit' and its envelope: otherwise a message never fits"
    scheme, colon, rest = settings.store_url.partition(":")
    if not colon or scheme not in ("sqlite", "postgresql", "postgres") or not rest:
        yield "'store' must be sqlite:PATH or postgresql://HOST/DATABASE"
    if scheme == "sqlite" and rest.startswith("//"):
        yield "'store': sqlite: takes a plain path after the colon, such as sqlite:evento.db"
    if scheme == "sqlite" and _is_set(settings, "store_schema"):
        yield "'store_schema' is for a 'store' in PostgreSQL: an SQLite file has no schemas"
    if settings.lease < _SHORTEST_LEASE:
        yield (
            f"'lease' must be at least {_SHORTEST_LEASE:g} second: bundles beat three times in it, and one that is "
            "busy for longer would lose its names"
        )


def _contradictory_tls(settings: ServerSettings) -> Iterator[str]:
    if (settings.tls_cert is None) != (settings.tls_key is None):
        yield "'tls_cert' and 'tls_key' belong together: give both or none"
    if settings.tls_ca is not None and settings.tls_cert is None and not settings.nats:
        yield "'tls_ca' is for TLS, which 'tls_cert' and 'tls_key' switch on"
    if settings.tls_verify and settings.tls_ca is None:
        yield "'tls_verify' needs 'tls_ca': the authorities whose certificates are accepted"


def _contradictory_nats(settings: ServerSettings) -> Iterator[str]:
    if settings.nats and (settings.cluster_listen or settings.cluster_routes):
        yield "'cluster_listen' and 'cluster_routes' are for the NATS that this server starts, and 'nats' names another"
    if settings.nats:
        for name in _OF_OWN_NATS:
            if _is_set(settings, name):
                yield f"{name!r} is for the NATS that this server starts, and 'nats' names another: set it there"
    if settings.cluster_secret is not None and settings.cluster_listen is None:
        yield "'cluster_secret' is for other nodes, which come to 'cluster_listen': give both"
    if settings.cluster_routes and settings.cluster_listen is None:
        yield "'cluster_routes' needs 'cluster_listen': other nodes must reach this one too"
    if settings.nats_password is not None and not settings.nats:
        yield "'nats_password' is for the NATS that 'nats' names"


def _is_set(settings: ServerSettings, name: str) -> bool:
    return bool(getattr(settings, name) != ServerSettings.__dataclass_fields__[name].default)


def envelope_bytes(payload_limit: int) -> int:
    """Return how many bytes are allowed around a payload of the largest size.

    A reply carries a payload once more inside an error or an event, with its metadata.
    """
    return payload_limit // 8 + 2**20


# Showing ---------------------------------------------------------------------------------------------------------


def _sentence(key: Key) -> str:
    return key.sentence + (f" (default: {key.absent})" if key.absent else "")


def _toml(key: Key) -> str:
    default = key.default
    if default is None:
        return '""'
    if isinstance(default, bool):
        return key.shown_default
    if isinstance(default, int | float) and not key.shown_default.endswith("B"):
        return key.shown_default
    return f'"{key.shown_default}"'


def _has_password(value: Any) -> bool:
    if not isinstance(value, str) or "://" not in value:
        return False
    try:
        parts = urlsplit(value)
        return parts.password is not None or "password" in parse_qs(parts.query)
    except ValueError:
        return True
