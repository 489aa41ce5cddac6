"""`alexnet predict`."""

from __future__ import annotations

import sys
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from alexnet_cli.cli.options import Models, complain


def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    model: Models = None,
    top: Annotated[int, typer.Option(help="How many classes to name.", min=1)] = 5,
    ten_crop: Annotated[
        bool, typer.Option("--ten-crop", help="Average ten crops, as the paper does.")
    ] = False,
    neighbors: Annotated[
        int, typer.Option(help="Show so many training images nearest to it.", min=0)
    ] = 0,
    none_below: Annotated[
        float, typer.Option(help='Say "none of these" where no class is as likely.', min=0, max=1)
    ] = 0.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV and nothing else.")] = False,
) -> None:
    """Say what photographs show."""
    from rich.console import Console

    from alexnet_cli.cli import tables
    from alexnet_cli.data.manifest import Rejected
    from alexnet_cli.inference import prediction
    from alexnet_cli.inference.results import Prediction

    if json and csv:
        raise typer.BadParameter("choose one of --json and --csv")
    console, failures = Console(stderr=json or csv), 0
    shown: list[Prediction] = []

    def outcomes() -> Any:
        nonlocal failures
        with tables.progress_bar(console, "looking at the training images") as progress:
            found = prediction.predict(
                images,
                models=model,
                top=top,
                ten_crop=ten_crop,
                neighbors=neighbors,
                none_below=none_below,
                progress=progress,
            )
            first = next(found, None)
        for outcome in chain([first] if first else [], found):
            if isinstance(outcome, Rejected):
                failures += 1
                complain(tables.rejection(outcome))
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
        from alexnet_cli.reports import paper_figures

        try:
            picture = paper_figures.draw_nearest(shown, model)
        except OSError as error:  # a run that one may only read
            complain(f"{error.filename}: {error.strerror}; the neighbors are not drawn")
        else:
            if not (json or csv):
                tables.print_line(console, f"drawn in {picture}")
    if failures:
        raise typer.Exit(1)
