"""`alexnet split`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from alexnet_cli.cli.options import MOST_SEED, NoCheck, is_typed


class Link(StrEnum):
    """How the images get into the split."""

    copy = "copy"
    hard = "hard"
    symbolic = "symbolic"


def split(
    context: typer.Context,
    source: Annotated[
        Path, typer.Argument(help="Class folders, or a CSV file of images.", metavar="SOURCE")
    ],
    out: Annotated[Path, typer.Option(help="Output folder.", metavar="DIR")] = Path("data"),
    val: Annotated[float, typer.Option(help="Fraction for validation.", metavar="FRACTION")] = 0.1,
    test: Annotated[float, typer.Option(help="Fraction for testing.", metavar="FRACTION")] = 0,
    seed: Annotated[
        int, typer.Option(help="Seed of the random split.", metavar="N", min=0, max=MOST_SEED)
    ] = 0,
    group: Annotated[
        str | None,
        typer.Option(help="Keep sub-folders or like names together.", metavar="folder|REGEX"),
    ] = None,
    link: Annotated[
        Link, typer.Option(help="Copy or link the images.", metavar="copy|hard|symbolic")
    ] = Link.copy,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Write 256x256 TFRecords, fast at any size.")
    ] = False,
    no_check: NoCheck = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing split.")] = False,
) -> None:
    """Split images into train, val and test.

    Every class is divided by the same fractions; copies and groups stay together.
    """
    from rich.console import Console

    from alexnet_cli.api import splits
    from alexnet_cli.cli import screen, tables

    console = Console()
    with screen.stage_bar(console) as progress:
        written = splits.split(
            source,
            out,
            val=val if is_typed(context, "val") else None,
            test=test if is_typed(context, "test") else None,
            seed=seed if is_typed(context, "seed") else None,
            group=group,
            link=link.value if is_typed(context, "link") else None,
            prepare=prepare,
            check=not no_check,
            force=force,
            processes=True,
            progress=progress,
        )
    tables.show_split(console, written, out)
