"""`alexnet crossval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli.cli import options
from alexnet_cli.cli.old_option_names import reject_old_names


def crossval(
    data: options.Data = Path("data"),
    folds: Annotated[
        int, typer.Option(help="Parts of the data, and networks.", metavar="N", min=2)
    ] = 5,
    recipe: options.RecipeName = None,
    variant: options.Variants = None,
    set: options.Settings = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    learning_rate: options.LearningRate = None,
    gpus: options.Gpus = None,
    precision: options.Precision = "auto",
    weights: options.Weights = None,
    no_check: options.NoCheck = False,
    seed: options.SeedNumber = 0,
    out: Annotated[Path, typer.Option(help="Folder for runs and report.", metavar="DIR")] = Path(
        "crossval"
    ),
) -> None:
    """Judge every image once, by cross-validation.

    A network is trained for each fold on the images of the others. The result
    is pooled over all images. After an interruption the same command continues.
    """
    from rich.console import Console

    from alexnet_cli.api.cross_validation import crossval as crossval_folds
    from alexnet_cli.cli import screen, tables
    from alexnet_cli.cli.training_view import TrainingView

    reject_old_names(variant or (), set or ())
    console = Console()
    with TrainingView(console) as view:
        report = crossval_folds(
            data,
            folds=folds,
            recipe=recipe,
            variants=variant or (),
            settings=set or (),
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            gpus=gpus,
            precision=precision,
            weights=weights,
            check=not no_check,
            seed=seed,
            out=out,
            processes=True,
            callback=view,
        )
    tables.show_evaluation(console, report.details)
    tables.show_suspects(console, report.details, out / "suspects.csv")
    screen.print_line(console, f"report written to {out / 'report.html'}")
    screen.print_line(console, f"next: alexnet predict --model {out} IMAGE, the mean of the folds")
