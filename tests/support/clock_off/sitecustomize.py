"""Sets the wall clock of a Python process wrong, by ``CLOCK_OFF_SECONDS``: put this folder into ``PYTHONPATH``."""

from __future__ import annotations

import os
import time

_off = int(os.environ["CLOCK_OFF_SECONDS"])
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _off
time.time_ns = lambda: _time_ns() + _off * 1_000_000_000
