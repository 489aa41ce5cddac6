"""`alexnet figures`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli.cli.options import MovedData


def figures(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Run folders; several are compared.", metavar="RUNS", show_default="newest run"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Output folder.", metavar="DIR", show_default="RUN/figures"),
    ] = None,
    moved_data: MovedData = None,
) -> None:
    """Draw the figures of the paper from a run.

    They are the kernels of the first layer (Figure 3), predictions and nearest
    neighbors (Figure 4) and, of several runs, training errors (Figure 1).
    """
    from rich.console import Console

    from alexnet_cli.api.runs import draw_figures
    from alexnet_cli.cli import screen

    console = Console()
    with screen.progress_bar(console, "reading training images") as progress:
        pictures = draw_figures(runs or (), out, moved_data=moved_data, progress=progress)
    for picture in pictures:
        screen.print_line(console, str(picture))
