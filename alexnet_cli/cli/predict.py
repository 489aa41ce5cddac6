"""`alexnet predict`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli.cli.options import Models, MovedData, TenCrop, print_error
from alexnet_cli.errors import UsageError


def predict(
    images: Annotated[
        list[Path], typer.Argument(help="Image files or folders of images.", metavar="IMAGES")
    ],
    model: Models = None,
    top: Annotated[int, typer.Option(help="Classes to show per image.", metavar="N", min=1)] = 5,
    ten_crop: TenCrop = False,
    neighbors: Annotated[
        int, typer.Option(help="Nearest training images to show.", metavar="N", min=0)
    ] = 0,
    moved_data: MovedData = None,
    threshold: Annotated[
        float,
        typer.Option(help='Answer "none of these" if top-1 is below.', metavar="P", min=0, max=1),
    ] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV and nothing else.")] = False,
) -> None:
    """Classify images with a trained network."""
    from rich.console import Console

    from alexnet_cli.api.models import load
    from alexnet_cli.cli import tables
    from alexnet_cli.data.manifest import Rejected
    from alexnet_cli.inference.results import Prediction

    if json and csv:
        raise UsageError("choose one of --json and --csv")
    console, failures = Console(stderr=json or csv), 0
    loaded = load(model, moved_data=moved_data)
    shown: list[Prediction] = []

    def outcomes() -> Iterator[Prediction | Rejected]:
        nonlocal failures
        with tables.progress_bar(console, "reading training images") as progress:
            found = loaded.predict_files(
                images,
                top=top,
                ten_crop=ten_crop,
                threshold=threshold,
                neighbors=neighbors,
                progress=progress,
            )
        for outcome in found:
            if isinstance(outcome, Rejected):
                failures += 1
                print_error(tables.rejection(outcome))
            elif outcome.neighbors:
                shown.append(outcome)
            yield outcome

    if json:
        print(tables.prediction_json(list(outcomes())))
    elif csv:
        tables.write_prediction_csv(sys.stdout, outcomes())
    else:
        for outcome in outcomes():
            if isinstance(outcome, Prediction):
                tables.show_prediction(console, outcome)
    if shown:
        try:
            picture = loaded.draw_neighbors(shown)
        except OSError as error:  # a run folder that is read-only
            print_error(f"{error.filename}: {error.strerror}; the neighbors were not drawn")
        else:
            if not (json or csv):
                tables.print_line(console, f"drawn in {picture}")
    if failures:
        raise typer.Exit(1)
