"""`alexnet evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli.cli.options import Models


def evaluate(
    data: Annotated[
        Path | None,
        typer.Argument(help="Images to evaluate.  [default: those of the training]"),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="`train`, `val` or `test`.  [default: val]")
    ] = None,
    model: Models = None,
    ten_crop: Annotated[
        bool, typer.Option("--ten-crop", help="Average ten crops, as the paper does.")
    ] = False,
    none_below: Annotated[
        float | None,
        typer.Option(
            help="Tell what `predict --none-below` would refuse.", min=0, max=1, show_default=False
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write a page to show to this file.", show_default=False)
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write the figures to this file.", show_default=False)
    ] = None,
) -> None:
    """Measure a trained network: scores, classes, confusions."""
    from rich.console import Console

    from alexnet_cli.cli import tables
    from alexnet_cli.inference import evaluation
    from alexnet_cli.reports import html_report, plots
    from alexnet_cli.system.atomic_files import write_json

    console = Console()
    for file in filter(None, (report, json)):  # before the long wait
        if not file.parent.is_dir():
            raise typer.BadParameter(f"{file}: there is no folder {file.parent}")
        if file.is_dir():
            raise typer.BadParameter(f"{file}: is a folder; name a file")
        if file.is_symlink() or (file.exists() and not file.is_file()):  # /dev/stdout, /dev/null
            raise typer.BadParameter(f"{file}: is a link or a device; name a file")
    with tables.progress_bar(console, "evaluating") as progress:
        found = evaluation.evaluate(
            data,
            models=model,
            split=split,
            ten_crop=ten_crop,
            none_below=none_below,
            progress=progress,
        )
    tables.show_evaluation(console, found, none_below)  # first, as files may fail to be written
    if json is not None:
        write_json(json, tables.evaluation_json(found))
    if report is not None:
        html_report.write(found, report)
        tables.print_line(console, f"page written to {report}")
    first = found.members[0].path
    folder = data.resolve().name[:50] if data else None
    part = None if split == "val" else split
    name = "-".join(filter(None, ("confusion", folder, part)))
    picture = (first if first.is_dir() else first.parent) / f"{name}.png"
    title = f"{found.split}: top-1 {found.score.top1:.3f}"
    plots.draw_confusion(found.matrix, found.classes, picture, title)
    tables.print_line(console, f"confusion matrix drawn in {picture}")
