"""Predictions as bars on the screen, as JSON and as CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from typing import IO, Any

from rich.console import Console
from rich.text import Text

from alexnet_cli.cli.screen import print_line
from alexnet_cli.data.manifest import Rejected
from alexnet_cli.inference.results import Prediction
from alexnet_cli.system.safe_names import csv_safe, printable

BAR_WIDTH = 30


def show_prediction(console: Console, prediction: Prediction) -> None:
    """Print the path of an image and a bar for each class."""
    print_line(console, str(prediction.path), "bold")
    if prediction.below_threshold:
        print_line(console, "  none of these", "yellow")
    width = max(len(printable(name)) for name in prediction.classes)
    for name, probability in zip(prediction.classes, prediction.probabilities):
        full = round(BAR_WIDTH * probability)
        line = Text(f"  {printable(name):<{width}}  {probability:6.1%}  ")
        line.append("#" * full if console.options.ascii_only else "█" * full, style="green")
        console.print(line, soft_wrap=True)
    for near in prediction.neighbors:
        name = f"{printable(near.file.label):<{width}}  {near.file.path}"
        print_line(console, f"  near: {name}  ({near.distance:.1f})")


def predictions_json(outcomes: Sequence[Prediction | Rejected]) -> str:
    """Return the predictions as a JSON array with an object per image."""
    rows: list[dict[str, Any]] = []
    for outcome in outcomes:
        if isinstance(outcome, Rejected):
            rows.append({"image": str(outcome.path), "error": outcome.reason})
        else:
            pairs = zip(outcome.classes, outcome.probabilities)
            classes = [{"class": name, "probability": p} for name, p in pairs]
            rows.append({"image": str(outcome.path), "predictions": classes})
            if outcome.below_threshold:
                rows[-1]["none_of_these"] = True
            if outcome.neighbors:
                rows[-1]["neighbors"] = [
                    {
                        "path": str(near.file.path),
                        "label": near.file.label,
                        "distance": near.distance,
                    }
                    for near in outcome.neighbors
                ]
    return json.dumps(rows, indent=2)


def write_predictions_csv(file: IO[str], outcomes: Iterator[Prediction | Rejected]) -> None:
    """Write a row per image and class: image, rank, class, probability.

    An image below the threshold has one row without a class. A name that a spreadsheet would read
    as a formula gets a leading apostrophe; JSON has every name unchanged.
    """
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["image", "rank", "class", "probability"])
    for outcome in outcomes:
        if isinstance(outcome, Prediction):
            classes = ("",) if outcome.below_threshold else outcome.classes
            pairs = zip(classes, outcome.probabilities)
            for rank, (name, probability) in enumerate(pairs, start=1):
                image, label = csv_safe(outcome.path), csv_safe(name)
                writer.writerow([image, rank, label, f"{probability:.6f}"])
