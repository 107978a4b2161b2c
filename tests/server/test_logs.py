"""Log lines: one line each, in UTC, for people or for programs."""

import logging
import re

import msgspec

from evento.server.logs import JsonFormatter, TextFormatter


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("evento.server", logging.WARNING, __file__, 1, message, ("x",), None)
    vars(made).update(extra)
    return made


def test_text_is_one_line_whatever_was_sent() -> None:
    line = TextFormatter().format(record("bundle %s\n2026 ERROR forged\x1b[2J"))

    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING evento\.server: bundle x\\n2026 ERROR forged\\x1b\[2J", line
    )


def test_json_has_the_extras_and_the_traceback() -> None:
    try:
        raise ValueError("broken")
    except ValueError as error:
        made = record("bundle %s", bundle="shop", what=object(), exc_info=(ValueError, error, error.__traceback__))
    line = msgspec.json.decode(JsonFormatter().format(made))

    assert (line["level"], line["logger"], line["message"], line["bundle"]) == (
        "warning",
        "evento.server",
        "bundle x",
        "shop",
    )
    assert "ValueError: broken" in line["error"]
    assert line["time"].endswith("Z")
    assert "\n" not in JsonFormatter().format(made)
