"""`alexnet predict`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli.cli.options import Models, MovedData, TenCrop, print_error, report_undrawn
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
    heatmap: Annotated[
        bool, typer.Option("--heatmap", help="Draw where the evidence for the class lies.")
    ] = False,
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
    from alexnet_cli.cli import predictions, screen
    from alexnet_cli.data.manifest import Rejected
    from alexnet_cli.inference.results import Prediction

    if json and csv:
        raise UsageError("choose one of --json and --csv")
    console, failures = Console(stderr=json or csv), 0
    loaded = load(model, moved_data=moved_data)
    if heatmap and len(loaded.paths) > 1:
        raise UsageError("works with a single model only", argument="heatmap")
    shown: list[Prediction] = []
    pictures: list[Path] = []

    def outcomes() -> Iterator[Prediction | Rejected]:
        nonlocal failures
        with screen.progress_bar(
            console, "reading training images" if neighbors else "finding images"
        ) as progress:
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
                print_error(screen.rejection(outcome))
            else:
                if outcome.neighbors:
                    shown.append(outcome)
                if heatmap and outcome.file:
                    picture = _name_heatmap(outcome.file.path, pictures)
                    loaded.draw_heatmap(outcome.file, picture, label=outcome.label)
                    pictures.append(picture)
            yield outcome

    if json:
        print(predictions.predictions_json(list(outcomes())))
    elif csv:
        predictions.write_predictions_csv(sys.stdout, outcomes())
    else:
        for outcome in outcomes():
            if isinstance(outcome, Prediction):
                predictions.show_prediction(console, outcome)
    if shown:
        with report_undrawn("the neighbors were"):
            pictures.append(loaded.draw_neighbors(shown))
    if not (json or csv):
        for picture in pictures:
            screen.print_line(console, f"drawn in {picture}")
    if failures:
        raise typer.Exit(1)


def _name_heatmap(image: Path, taken: list[Path]) -> Path:
    """Return `NAME-heatmap.png` in the current folder, with a number where that is another file."""
    from alexnet_cli.reports.heatmap_pictures import is_heatmap

    for number in count(1):
        path = Path(f"{image.stem}-heatmap{'' if number == 1 else f'-{number}'}.png")
        if path not in taken and (not os.path.lexists(path) or is_heatmap(path)):
            break
    return path
