"""`alexnet train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli.cli import options
from alexnet_cli.cli.old_option_names import reject_old_names
from alexnet_cli.cli.options import is_typed, option_name
from alexnet_cli.errors import UsageError

# All else is what a run is made of, which resuming can't change.
_CHANGEABLE = ("epochs", "gpus", "hosts", "rank", "resume", "moved_data")


def train(
    context: typer.Context,
    data: options.Data = Path("data"),
    recipe: options.RecipeName = None,
    variant: options.Variants = None,
    set: options.Settings = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    learning_rate: options.LearningRate = None,
    gpus: options.Gpus = None,
    precision: options.Precision = "auto",
    weights: options.Weights = None,
    hosts: Annotated[
        str | None,
        typer.Option(
            help="All machines.", metavar="HOST:PORT,...", show_default="TF_CONFIG or Slurm"
        ),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="Index of this machine in --hosts, from 0.", metavar="N")
    ] = None,
    no_check: options.NoCheck = False,
    seed: options.SeedNumber = 0,
    out: Annotated[Path, typer.Option(help="Folder for run folders.", metavar="DIR")] = Path(
        "runs"
    ),
    resume: Annotated[
        Path | None,
        typer.Option(help="Continue this run, perhaps with more --epochs.", metavar="RUN"),
    ] = None,
    moved_data: options.MovedData = None,
) -> None:
    """Train a network and save it as a run."""
    from rich.console import Console

    from alexnet_cli.api.runs import resume as resume_run
    from alexnet_cli.api.runs import train as train_run
    from alexnet_cli.cli.training_view import TrainingView, show_training

    names = [parameter.name for parameter in context.command.params if parameter.name]
    given = [name for name in names if name not in _CHANGEABLE and is_typed(context, name)]
    if resume is not None and given:
        reason = f"a run is resumed as it began; leave out {option_name(given[0])}"
        if given[0] == "data":
            reason += ", or give --moved-data if its images have moved"
        raise UsageError(reason, argument="resume", value=resume)
    if resume is None and moved_data is not None:
        reason = "belongs to --resume; give the images of a new run as DATA"
        raise UsageError(reason, argument="moved_data", value=moved_data)
    reject_old_names(variant or (), set or ())
    console = Console()
    machines = hosts.split(",") if hosts is not None else None
    with TrainingView(console) as view:
        if resume is not None:
            run = resume_run(
                resume,
                epochs=epochs,
                gpus=gpus,
                hosts=machines,
                rank=rank,
                moved_data=moved_data,
                callback=view,
            )
        else:
            run = train_run(
                data,
                recipe=recipe,
                variants=variant or (),
                settings=set or (),
                epochs=epochs,
                batch_size=batch_size,
                learning_rate=learning_rate,
                gpus=gpus,
                precision=precision,
                weights=weights,
                hosts=machines,
                rank=rank,
                check=not no_check,
                seed=seed,
                out=out,
                processes=True,
                callback=view,
            )
    if run:
        show_training(console, run.path, run.metrics)
