"""`alexnet export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli.cli.options import MovedData


class Format(StrEnum):
    """File formats of an export."""

    savedmodel = "savedmodel"
    onnx = "onnx"
    litert = "litert"


class WeightType(StrEnum):
    """Types that the weights of a LiteRT model can be reduced to."""

    float16 = "float16"
    int8 = "int8"


def export(
    run: Annotated[
        Path | None,
        typer.Argument(help="Run folder to export.", metavar="RUN", show_default="newest run"),
    ] = None,
    format: Annotated[
        Format, typer.Option(help="litert, onnx or savedmodel.", metavar="FORMAT")
    ] = Format.litert,
    quantize: Annotated[
        WeightType | None,
        typer.Option(
            help="Weight type (litert only).", metavar="float16|int8", show_default="float32"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Output file or folder.", metavar="FILE", show_default="in RUN"),
    ] = None,
    license: Annotated[
        str, typer.Option(help="License of the model.", metavar="NAME")
    ] = "not stated",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing export.")] = False,
    moved_data: MovedData = None,
) -> None:
    """Export a run to LiteRT, ONNX or SavedModel.

    The exported model is compared with the run on validation images; an export
    whose predictions differ is discarded.
    """
    from rich.console import Console

    from alexnet_cli.api.models import load
    from alexnet_cli.cli import tables

    report = load(run, moved_data=moved_data).export(
        format.value,
        out,
        quantize=quantize.value if quantize else None,
        license=license,
        force=force,
    )
    tables.show_export(Console(), report)
