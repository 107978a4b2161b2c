"""``python -m evento`` is the ``evento`` command."""

import sys

from evento.cli import main

if __name__ == "__main__":
    sys.exit(main())
