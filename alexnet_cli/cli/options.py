"""The commands: options, one call into the core, the report on the screen.

TensorFlow takes seconds to import, and even Rich's console longer than `--help` should: whatever a
command needs is imported inside it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

Models = Annotated[
    list[Path] | None,
    typer.Option(
        help="A run folder, or Caffe's .npy; several are averaged.  [default: the newest]",
        show_default=False,
    ),
]

NoCheck = Annotated[
    bool, typer.Option("--no-check", help="Trust the images' names, and read none beforehand.")
]


MOST_SEED = 2**63 - 1  # as JSON may hold it


def is_typed(context: typer.Context, name: str) -> bool:
    """Say whether an option was given, rather than left at its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def complain(message: str) -> None:
    """Say in one line on standard error what is wrong."""
    from alexnet_cli.system.safe_names import printable

    print(f"alexnet: {printable(message)}", file=sys.stderr)
