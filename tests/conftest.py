"""What holds for all tests."""

from __future__ import annotations

import signal

# A shell that starts the tests in the background has SIGINT ignored, also for the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
