"""`alexnet evaluate`."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli.cli.options import Models, MovedData, TenCrop, report_undrawn
from alexnet_cli.errors import UsageError


def evaluate(
    data: Annotated[
        Path | None,
        typer.Argument(
            help="Images to evaluate.", metavar="DATA", show_default="the run's own images"
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Split to evaluate.", metavar="train|val|test", show_default="val and test"
        ),
    ] = None,
    model: Models = None,
    ten_crop: TenCrop = False,
    threshold: Annotated[
        float | None,
        typer.Option(help="Show the cost of predict --threshold P.", metavar="P", min=0, max=1),
    ] = None,
    moved_data: MovedData = None,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML report to this file.", metavar="FILE")
    ] = None,
    suspects: Annotated[
        Path | None,
        typer.Option(help="Write suspect labels to this CSV.", metavar="FILE"),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON and nothing else.")
    ] = False,
) -> None:
    """Measure the accuracy of a trained network.

    Without --split, validation and test are shown side by side; classes,
    confusion matrix, JSON and report are of test where there is a test split.
    """
    from rich.console import Console

    from alexnet_cli.api.arguments import as_new_file
    from alexnet_cli.api.models import load
    from alexnet_cli.cli import screen, tables
    from alexnet_cli.inference.results import FOLDS

    console = Console(stderr=json)
    if json and data is not None and data.suffix == ".json":
        reason = f"--json prints to standard output; use: alexnet evaluate --json > {data}"
        raise UsageError(reason, argument="data", value=data)
    for name, file in (("report", report), ("suspects", suspects)):
        if file is not None:
            as_new_file(name, file)  # before the long wait
    loaded = load(model, moved_data=moved_data)
    with screen.progress_bar(console, "evaluating") as progress:
        found = loaded.evaluate(
            data, split=split, ten_crop=ten_crop, threshold=threshold, progress=progress
        )
    if json:  # first, as files may fail to be written
        print(dumps(found.details.as_json(), indent=2))
    else:
        tables.show_evaluation(console, found.details, threshold)
    if report is not None:
        found.save_html(report)
        screen.print_line(console, f"report written to {report}")
    if suspects is not None:
        found.save_suspects(suspects)
        tables.show_suspects(console, found.details, suspects)
    first = loaded.paths[0]
    folder = data.resolve().name[:50] if data else None
    part = found.details.split if found.details.split != "all" else None
    name = "-".join(filter(None, ("confusion", folder, part)))
    single = first.is_dir() and part != FOLDS
    picture = (first if single else first.parent) / f"{name}.png"
    with report_undrawn("the confusion matrix was"):
        found.plot_confusion(picture)
        screen.print_line(console, f"confusion matrix drawn in {picture}")
