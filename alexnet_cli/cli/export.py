"""`alexnet export`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Format(str, Enum):
    """What a network is exported as."""

    savedmodel = "savedmodel"
    onnx = "onnx"
    litert = "litert"


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
    license: Annotated[
        str, typer.Option(help="On what terms others may use it: written into it.")
    ] = "not stated",
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
) -> None:
    """Write a trained network for other programs, and check it against the run."""
    from rich.console import Console

    from alexnet_cli.cli import tables
    from alexnet_cli.system import tensorflow_startup

    console = Console()
    tensorflow_startup.load_tensorflow()
    from alexnet_cli.inference import exporting

    report = exporting.export(run, format.value, out, form=form, license=license, force=force)
    tables.show_export(console, report)
