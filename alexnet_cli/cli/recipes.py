"""`alexnet recipes`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def recipes(
    name: Annotated[
        str | None, typer.Argument(help="A recipe, or a run folder.", show_default=False)
    ] = None,
) -> None:
    """List the recipes, or hold one against the paper, constant by constant."""
    from rich.console import Console

    from alexnet_cli.cli import tables
    from alexnet_cli.recipes.presets import RECIPES, find_recipe
    from alexnet_cli.runs.run_folder import RunFolder

    console = Console()
    if name is None:
        tables.show_recipes(console)
    else:
        is_run = name not in RECIPES and Path(name).is_dir()
        run = RunFolder.find(Path(name)) if is_run else None
        tables.show_fidelity(console, run.recipe() if run else find_recipe(name))
        tables.show_findings(console, run.findings() if run else ())
