"""`alexnet figures`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def figures(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Run folders; several are compared.  [default: the newest]"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where they go.  [default: RUN/figures]", file_okay=False, show_default=False
        ),
    ] = None,
) -> None:
    """Draw the paper's figures from a run: kernels, predictions, neighbors, training errors."""
    from rich.console import Console

    from alexnet_cli.cli import tables
    from alexnet_cli.reports import paper_figures

    console = Console()
    with tables.progress_bar(console, "looking at the training images") as progress:
        pictures = paper_figures.draw(runs, out, progress)
    for picture in pictures:
        tables.print_line(console, str(picture))
