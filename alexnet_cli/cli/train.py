"""`alexnet train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli.cli.old_option_names import reject_old_names
from alexnet_cli.cli.options import MOST_SEED, MovedData, NoCheck, is_typed, option_name
from alexnet_cli.errors import UsageError

# All else is what a run is made of, which resuming can't change.
_CHANGEABLE = ("epochs", "gpus", "hosts", "rank", "resume", "moved_data")


# Options of `crossval` too.
Data = Annotated[
    Path, typer.Argument(help="Split, class folders, or a CSV file of images.", metavar="DATA")
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        help="Recipe name.",
        metavar="NAME",
        show_default="modern, or that of --weights",
    ),
]
Variants = Annotated[
    list[str] | None,
    typer.Option(help="Named change, such as half-size; repeatable.", metavar="NAME"),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(help="Set a hyperparameter (conv2.bias=1); repeatable.", metavar="NAME=VALUE"),
]
Epochs = Annotated[
    int | None,
    typer.Option(help="Passes over the images.", metavar="N", min=1, show_default="the recipe's"),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        help="Images a step, all devices.", metavar="N", min=1, show_default="the recipe's"
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option(help="Peak learning rate.", metavar="RATE", show_default="the recipe's"),
]
Gpus = Annotated[
    int | None,
    typer.Option(help="GPUs to use; 0 is the CPU.", metavar="N", min=0, show_default="all"),
]
Precision = Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.", metavar="TYPE")]
Weights = Annotated[
    Path | None,
    typer.Option(help="Run or .npy to start from, but the last layer.", metavar="MODEL"),
]
SeedNumber = Annotated[
    int,
    typer.Option(help="Seed of everything random.", metavar="N", min=0, max=MOST_SEED),
]


def train(
    context: typer.Context,
    data: Data = Path("data"),
    recipe: RecipeName = None,
    variant: Variants = None,
    set: Settings = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    gpus: Gpus = None,
    precision: Precision = "auto",
    weights: Weights = None,
    hosts: Annotated[
        str | None,
        typer.Option(
            help="All machines.", metavar="HOST:PORT,...", show_default="TF_CONFIG or Slurm"
        ),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="Index of this machine in --hosts, from 0.", metavar="N")
    ] = None,
    no_check: NoCheck = False,
    seed: SeedNumber = 0,
    out: Annotated[Path, typer.Option(help="Folder for run folders.", metavar="DIR")] = Path(
        "runs"
    ),
    resume: Annotated[
        Path | None,
        typer.Option(help="Continue this run; only --epochs may change.", metavar="RUN"),
    ] = None,
    moved_data: MovedData = None,
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
