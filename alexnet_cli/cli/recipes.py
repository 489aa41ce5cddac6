"""`alexnet recipes`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(help="Recipe or run folder to compare with the paper.", metavar="NAME"),
    ] = None,
) -> None:
    """List the recipes, or compare with the paper."""
    from rich.console import Console

    from alexnet_cli.api.runs import Run
    from alexnet_cli.cli import tables
    from alexnet_cli.recipes.presets import RECIPES, find_recipe

    console = Console()
    if name is None:
        tables.show_recipes(console)
        return
    is_run = name not in RECIPES and Path(name).is_dir()
    run = Run(name) if is_run else None
    tables.show_paper_comparison(console, run.recipe if run else find_recipe(name))
    tables.show_findings(console, run.findings if run else ())
