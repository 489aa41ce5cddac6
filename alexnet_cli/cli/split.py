"""`alexnet split`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli.cli.options import MOST_SEED, NoCheck, is_typed


class Link(str, Enum):
    """How a split holds the images of its source."""

    copy = "copy"
    hard = "hard"
    symbolic = "symbolic"


def split(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="A folder that holds one folder per class.")],
    out: Annotated[Path, typer.Option(help="Where the split goes.")] = Path("data"),
    val: Annotated[float, typer.Option(help="Fraction of each class to validate on.")] = 0.1,
    test: Annotated[float, typer.Option(help="Fraction of each class to test on.")] = 0.0,
    seed: Annotated[
        int, typer.Option(help="The same seed gives the same split.", min=0, max=MOST_SEED)
    ] = 0,
    link: Annotated[Link, typer.Option(help="Copy the images or link to them.")] = Link.copy,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Squares of 256 in TFRecord shards: fast at any size.")
    ] = False,
    no_check: NoCheck = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier split.")] = False,
) -> None:
    """Divide a folder of class folders into training, validation and test images."""
    from rich.console import Console

    from alexnet_cli.cli import tables
    from alexnet_cli.data import scan_cache, scanning, splitting, tfrecords
    from alexnet_cli.system import tensorflow_startup

    console = Console()
    divided = prepare and scanning.is_split(source)
    for name in ("val", "test", "seed"):
        if divided and is_typed(context, name):
            raise typer.BadParameter(f"{source} is divided already: leave out --{name}")
    if prepare and is_typed(context, "link"):
        raise typer.BadParameter("--prepare writes new images: leave out --link")
    splitting.check_target(out, scanning.require_folder(source), force)  # before the long wait
    with tables.progress_bar(console, "checking images") as progress:
        reading = scanning.ScanOptions(not no_check, scan_cache.beside(out), progress)
        if divided:
            planned = splitting.open_data(source, reading=reading)
        else:
            scan = scanning.scan(source, reading)
            planned = splitting.plan(scan, val=val, test=test, seed=seed)
    with tables.progress_bar(console, "writing") as progress:
        if prepare:
            tensorflow_startup.load_tensorflow()
            written = tfrecords.write(planned, out, force=force, progress=progress)
        else:
            written = splitting.write(planned, out, link=link.value, force=force, progress=progress)
    tables.show_split(console, written, out)
