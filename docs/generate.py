"""Write what is generated in docs/: `make docs`.

cli.md has the help of every command, between the lines that name it; the text around stays.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

CLI = Path(__file__).parent / "cli.md"
HELP = re.compile(r"(?<=```\n)\$ alexnet ?(\w*) --help\n.*?(?=```)", re.DOTALL)


def show_help(command: str) -> str:
    """Return a command line and the help that it shows on a screen of 80 columns."""
    words = [*command.split(), "--help"]
    shown = subprocess.run(
        [sys.executable, "-m", "alexnet_cli", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
        check=True,
    ).stdout
    text = shown.replace("python -m alexnet_cli", "alexnet")
    return f"$ {' '.join(['alexnet', *words])}\n{text}"


def with_current_help(page: str) -> str:
    """Return a page in which every help is that of the program."""
    return HELP.sub(lambda match: show_help(match[1]), page)


if __name__ == "__main__":
    CLI.write_text(with_current_help(CLI.read_text()))
