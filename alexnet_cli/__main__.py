"""`alexnet` and `python -m alexnet_cli`."""

import os
import sys

from alexnet_cli import cli


def main() -> None:
    """Run the command line, and leave without the 0.7 s that TensorFlow takes to tear itself down."""
    code: int | str | None = 0
    try:
        cli.main()
    except SystemExit as done:
        code = done.code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(code or 0))


if __name__ == "__main__":
    main()
