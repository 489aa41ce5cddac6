"""The commands: options, one call into the core, the report on the screen.

TensorFlow takes seconds to import, and even Rich's console longer than `--help` should: whatever a
command needs is imported inside it.
"""

from __future__ import annotations

import errno
import os
import sys
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from alexnet_cli import __version__
from alexnet_cli.errors import AlexNetError

app = typer.Typer(
    help="Train, evaluate and use the AlexNet of 2012 on any folder of images.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its renderer takes longer to import than all the rest
    context_settings={"help_option_names": ["-h", "--help"]},
)

Models = Annotated[
    list[Path] | None,
    typer.Option(
        help="A run folder, or Caffe's .npy; several are averaged.  [default: the newest]",
        show_default=False,
    ),
]


class Format(str, Enum):
    """What a network is exported as."""

    savedmodel = "savedmodel"
    onnx = "onnx"
    litert = "litert"


class Link(str, Enum):
    """How a split holds the images of its source."""

    copy = "copy"
    hard = "hard"
    symbolic = "symbolic"


def main() -> None:
    """Run the command line; an error that the user can mend is one line and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except (AlexNetError, typer.TyperException) as error:
        message = str(error) if isinstance(error, AlexNetError) else error.format_message()
        _complain(message)
        code = error.exit_code
    except BrokenPipeError:  # whoever reads us, such as `head`, has had enough
        _forget_output()
        code = 1  # as Rich has it where it writes
    except OSError as error:
        if error.errno not in _SURROUNDINGS:
            raise
        _forget_output()
        _complain(f"{error.filename or 'output'}: {error.strerror}")
        code = 1
    sys.exit(code)


# What a file system may say at any time: no fault of ours, and nothing that a traceback explains.
_SURROUNDINGS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


def _forget_output() -> None:
    """Keep Python from writing at its end what can't be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(message: str) -> None:
    from alexnet_cli.names import plain

    print(f"alexnet: {plain(message)}", file=sys.stderr)


def _print_version(value: bool) -> None:
    if value:
        print(f"alexnet {__version__}")
        raise typer.Exit


@app.callback()
def _alexnet(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


NoCheck = Annotated[
    bool, typer.Option("--no-check", help="Trust the images' names, and read none beforehand.")
]


@app.command()
def split(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="A folder that holds one folder per class.")],
    out: Annotated[Path, typer.Option(help="Where the split goes.")] = Path("data"),
    val: Annotated[float, typer.Option(help="Fraction of each class to validate on.")] = 0.1,
    test: Annotated[float, typer.Option(help="Fraction of each class to test on.")] = 0.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same split.")] = 0,
    link: Annotated[Link, typer.Option(help="Copy the images or link to them.")] = Link.copy,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Squares of 256 in TFRecord shards: fast at any size.")
    ] = False,
    no_check: NoCheck = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier split.")] = False,
) -> None:
    """Divide a folder of class folders into training, validation and test images."""
    from rich.console import Console

    from alexnet_cli import journal, render, scanning, shards, splitting, startup

    console = Console()
    divided = prepare and scanning.is_split(source)
    for name in ("val", "test", "seed"):
        if divided and _is_typed(context, name):
            raise typer.BadParameter(f"{source} is divided already: leave out --{name}")
    if prepare and _is_typed(context, "link"):
        raise typer.BadParameter("--prepare writes new images: leave out --link")
    splitting.check_target(out, scanning.require_folder(source), force)  # before the long wait
    with render.progress_bar(console, "checking images") as progress:
        reading = scanning.Reading(not no_check, journal.beside(out), progress)
        if divided:
            planned = splitting.open_data(source, reading=reading)
        else:
            scan = scanning.scan(source, reading)
            planned = splitting.plan(scan, val=val, test=test, seed=seed)
    with render.progress_bar(console, "writing") as progress:
        if prepare:
            startup.load_tensorflow()
            written = shards.write(planned, out, force=force, progress=progress)
        else:
            written = splitting.write(planned, out, link=link.value, force=force, progress=progress)
    render.show_split(console, written, out)


# What a run is made of, and resuming can't change.
_FIXED = (
    *("data", "recipe", "variant", "set", "batch_size", "learning_rate"),
    *("precision", "weights", "no_check", "seed", "out"),
)


@app.command()
def train(
    context: typer.Context,
    data: Annotated[Path, typer.Argument(help="What `split` wrote, or class folders.")] = Path(
        "data"
    ),
    recipe: Annotated[
        str | None,
        typer.Option(help="See `alexnet recipes`.  [default: paper, or that of --weights]"),
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
    seed: Annotated[int, typer.Option(help="Of weights, order, crops and dropout.")] = 0,
    out: Annotated[Path, typer.Option(help="Where the run folder goes.")] = Path("runs"),
    resume: Annotated[
        Path | None,
        typer.Option(help="Continue this run folder; --epochs may grow.", show_default=False),
    ] = None,
) -> None:
    """Train AlexNet, and keep the weights, the figures and all it takes to repeat them."""
    from rich.console import Console

    from alexnet_cli import screen, startup
    from alexnet_cli.cluster import find_cluster, meet
    from alexnet_cli.recipes import find_recipe
    from alexnet_cli.variants import compose

    given = [name for name in _FIXED if _is_typed(context, name)]
    if resume is not None and given:
        option = f"--{given[0].replace('_', '-')}" if given[0] != "data" else "DATA"
        raise typer.BadParameter(f"a run is resumed as it began: leave out {option}")
    shorthands = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    settings = [f"{name}={value}" for name, value in shorthands.items() if value is not None]
    settings = [*(set or ()), *settings]
    compose(find_recipe(recipe or "paper"), variant or (), settings)  # complain before the wait
    cluster = find_cluster(workers, worker, os.environ)
    if cluster:
        meet(cluster)
    startup.load_tensorflow()
    from alexnet_cli import training
    from alexnet_cli.classifier import read_weights
    from alexnet_cli.devices import choose_devices

    console = Console()
    devices = choose_devices(gpus, precision, cluster)
    initial = read_weights(weights) if weights else None
    base = initial.recipe if initial and recipe is None else find_recipe(recipe or "paper")
    chosen = compose(base, variant or (), settings)
    with screen.open_screen(console, cluster) as listener:
        if resume is not None:
            report = training.resume(resume, devices=devices, epochs=epochs, listener=listener)
        else:
            report = training.train(
                data,
                recipe=chosen,
                devices=devices,
                out=out,
                seed=seed,
                check=not no_check,
                initial=initial,
                listener=listener,
            )
    if report:
        screen.show_training(console, report, out)


@app.command()
def recipes(
    name: Annotated[
        str | None, typer.Argument(help="A recipe, or a run folder.", show_default=False)
    ] = None,
) -> None:
    """List the recipes, or hold one against the paper, constant by constant."""
    from rich.console import Console

    from alexnet_cli import render
    from alexnet_cli.artifacts import RunFolder
    from alexnet_cli.recipes import RECIPES, find_recipe

    console = Console()
    if name is None:
        render.show_recipes(console)
    else:
        is_run = name not in RECIPES and Path(name).is_dir()
        run = RunFolder.find(Path(name)) if is_run else None
        render.show_fidelity(console, run.card().recipe if run else find_recipe(name))
        render.show_findings(console, run.findings() if run else ())


def _is_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


@app.command()
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
            help="Tell what `predict` with it would refuse.", min=0, max=1, show_default=False
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

    from alexnet_cli import evaluation, figures, page, render
    from alexnet_cli.files import write_json

    console = Console()
    for file in filter(None, (report, json)):  # before the long wait
        if not file.parent.is_dir():
            raise typer.BadParameter(f"{file}: there is no folder {file.parent}")
    with render.progress_bar(console, "evaluating") as progress:
        found = evaluation.evaluate(
            data,
            models=model,
            split=split,
            ten_crop=ten_crop,
            none_below=none_below,
            progress=progress,
        )
    first = found.members[0].path
    picture = (first if first.is_dir() else first.parent) / "confusion.png"
    title = f"{found.split}: top-1 {found.score.top1:.3f}"
    figures.draw_confusion(found.matrix, found.classes, picture, title)
    if json is not None:
        write_json(json, render.evaluation_json(found))
    if report is not None:
        page.write(found, report)
    render.show_evaluation(console, found, picture, none_below)
    if report is not None:
        render.say(console, f"page written to {report}")


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    model: Models = None,
    top: Annotated[int, typer.Option(help="How many classes to name.", min=1)] = 5,
    ten_crop: Annotated[
        bool, typer.Option("--ten-crop", help="Average ten crops, as the paper does.")
    ] = False,
    neighbours: Annotated[
        int, typer.Option(help="Show so many training images nearest to it.", min=0)
    ] = 0,
    none_below: Annotated[
        float, typer.Option(help="No class where none is as likely.", min=0, max=1)
    ] = 0.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV and nothing else.")] = False,
) -> None:
    """Say what photographs show."""
    from rich.console import Console

    from alexnet_cli import prediction, render
    from alexnet_cli.manifest import Rejected
    from alexnet_cli.reports import Prediction

    if json and csv:
        raise typer.BadParameter("choose one of --json and --csv")
    console, failures = Console(stderr=json or csv), 0
    shown: list[Prediction] = []

    def outcomes() -> Any:
        nonlocal failures
        with render.progress_bar(console, "looking at the training images") as progress:
            found = prediction.predict(
                images,
                models=model,
                top=top,
                ten_crop=ten_crop,
                neighbours=neighbours,
                none_below=none_below,
                progress=progress,
            )
            first = next(found, None)
        for outcome in chain([first] if first else [], found):
            if isinstance(outcome, Rejected):
                failures += 1
                _complain(render.rejection(outcome))
            elif outcome.neighbours:
                shown.append(outcome)
            yield outcome

    if json:
        print(render.prediction_json(list(outcomes())))
    elif csv:
        render.write_prediction_csv(sys.stdout, outcomes())
    else:
        for outcome in outcomes():
            if isinstance(outcome, Prediction):
                render.show_prediction(console, outcome)
    if shown:
        from alexnet_cli import gallery

        picture = gallery.draw_nearest(shown, model)
        if not (json or csv):
            render.say(console, f"drawn in {picture}")
    if failures:
        raise typer.Exit(1)


@app.command()
def figures(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Run folders; several are compared.  [default: the newest]"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where they go.  [default: RUN/figures]", show_default=False),
    ] = None,
) -> None:
    """Draw the paper's figures from a run: kernels, predictions, neighbours, training errors."""
    from rich.console import Console

    from alexnet_cli import gallery, render

    console = Console()
    with render.progress_bar(console, "looking at the training images") as progress:
        pictures = gallery.draw(runs, out, progress)
    for picture in pictures:
        render.say(console, str(picture))


@app.command()
def export(
    run: Annotated[
        Path | None, typer.Argument(help="A run folder.  [default: the newest]", show_default=False)
    ] = None,
    format: Annotated[Format, typer.Option(help="For which programs.")] = Format.litert,
    form: Annotated[
        str, typer.Option(help="Of the weights: `float32`; for litert also `float16`, `int8`.")
    ] = "float32",
    out: Annotated[
        Path | None,
        typer.Option(help="Where it goes.  [default: into the run folder]", show_default=False),
    ] = None,
    licence: Annotated[
        str, typer.Option(help="On what terms others may use it: written into it.")
    ] = "not stated",
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
) -> None:
    """Write a trained network for other programs, and check it against the run."""
    from rich.console import Console

    from alexnet_cli import render, startup

    console = Console()
    startup.load_tensorflow()
    from alexnet_cli import exporting

    report = exporting.export(run, format.value, out, form=form, licence=licence, force=force)
    render.show_export(console, report)
