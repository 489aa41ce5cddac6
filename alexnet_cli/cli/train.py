"""`alexnet train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli.cli.options import MOST_SEED, NoCheck, is_typed

# What a run is made of, and resuming can't change.
_FIXED = (
    *("data", "recipe", "variant", "set", "batch_size", "learning_rate"),
    *("precision", "weights", "no_check", "seed", "out"),
)


def train(
    context: typer.Context,
    data: Annotated[Path, typer.Argument(help="What `split` wrote, or class folders.")] = Path(
        "data"
    ),
    recipe: Annotated[
        str | None,
        typer.Option(help="See `alexnet recipes`.  [default: modern, or that of --weights]"),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(help="Change it as the paper did: see `alexnet recipes`.", show_default=False),
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE of any constant, as conv2.bias=1.", show_default=False),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Times to go through the images.  [default: the recipe's]", min=1),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Over all devices.  [default: the recipe's]", min=1),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="At the start.  [default: the recipe's]")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(help="0 is the CPU.  [default: all there are]", min=0)
    ] = None,
    precision: Annotated[
        str, typer.Option(help="`float32`, `bfloat16`, `float16`, or `auto`: the fastest here.")
    ] = "auto",
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Start from this run or Caffe's .npy, all layers but the last.", show_default=False
        ),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(
            help="Several machines: all as host:port,host:port.  [default: of TF_CONFIG or Slurm]",
            show_default=False,
        ),
    ] = None,
    worker: Annotated[
        int | None,
        typer.Option(help="Which of --workers this one is, from 0 on.", show_default=False),
    ] = None,
    no_check: NoCheck = False,
    seed: Annotated[
        int,
        typer.Option(
            help="Of weights, order, crops and dropout; of the division, if DATA is not split.",
            min=0,
            max=MOST_SEED,
        ),
    ] = 0,
    out: Annotated[Path, typer.Option(help="Where the run folder goes.", file_okay=False)] = Path(
        "runs"
    ),
    resume: Annotated[
        Path | None,
        typer.Option(help="Continue this run folder; --epochs may change.", show_default=False),
    ] = None,
) -> None:
    """Train AlexNet, and keep the weights, the figures and all it takes to repeat them."""
    from rich.console import Console

    from alexnet_cli.cli import training_view
    from alexnet_cli.recipes.presets import DEFAULT, find_recipe
    from alexnet_cli.recipes.variants import build_recipe
    from alexnet_cli.system import tensorflow_startup
    from alexnet_cli.training.cluster import find_cluster, wait_for_workers

    given = [name for name in _FIXED if is_typed(context, name)]
    if resume is not None and given:
        option = f"--{given[0].replace('_', '-')}" if given[0] != "data" else "DATA"
        raise typer.BadParameter(f"a run is resumed as it began: leave out {option}")
    shorthands = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    settings = [f"{name}={value}" for name, value in shorthands.items() if value is not None]
    settings = [*(set or ()), *settings]
    if weights is None or recipe:
        build_recipe(
            find_recipe(recipe or DEFAULT), variant or (), settings
        )  # complain before the wait
    cluster = find_cluster(workers, worker, os.environ)
    if cluster:
        wait_for_workers(cluster)
    tensorflow_startup.load_tensorflow()
    from alexnet_cli.network.keras_network import read_weights
    from alexnet_cli.training import start_and_resume
    from alexnet_cli.training.devices import choose_devices

    console = Console()
    devices = choose_devices(gpus, precision, cluster)
    initial = read_weights(weights) if weights else None
    base = initial.recipe if initial and recipe is None else find_recipe(recipe or DEFAULT)
    chosen = build_recipe(base, variant or (), settings)
    with training_view.open_view(console, cluster) as callback:
        if resume is not None:
            report = start_and_resume.resume(
                resume, devices=devices, epochs=epochs, callback=callback
            )
        else:
            report = start_and_resume.train(
                data,
                recipe=chosen,
                devices=devices,
                out=out,
                seed=seed,
                check=not no_check,
                initial=initial,
                callback=callback,
            )
    if report:
        training_view.show_training(console, report)
