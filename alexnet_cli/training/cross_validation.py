"""Cross-validation: a run for each fold; what is killed goes on when it is called again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from alexnet_cli.data.manifest import Manifest
from alexnet_cli.errors import AlexNetError
from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.runs import folds
from alexnet_cli.runs.models import LoadedModel
from alexnet_cli.runs.run_folder import LAST, LOCK, RunFolder
from alexnet_cli.system.locks import own_lock_file
from alexnet_cli.system.signals import Interrupted
from alexnet_cli.training import start_and_resume
from alexnet_cli.training.callbacks import Callback
from alexnet_cli.training.devices import Devices
from alexnet_cli.training.start_and_resume import Draw


def train_folds(
    plans: Sequence[Manifest],
    *,
    recipe: Recipe,
    devices: Devices,
    out: Path,
    seed: int,
    initial: LoadedModel | None,
    callback: Callback | None,
    draw: Draw,
) -> None:
    """Train `recipe` on each of `plans`, as `plan_folds` returns them, in `out`/fold-1, fold-2, …

    Trained folds are kept, and one that was interrupted is resumed. Raises `AlexNetError` if those
    in `out` have other settings or images.
    """
    settings = {
        "folds": len(plans),
        "data": str(plans[0].root),
        "recipe": asdict(recipe),
        "seed": seed,
        "precision": devices.precision,
        "initial_weights": str(initial.path) if initial else None,
    }
    folds.begin(out, json.loads(json.dumps(settings)))
    with own_lock_file(out / LOCK, f"{out}: another alexnet is training its folds"):
        for number, plan in enumerate(plans, start=1):
            run = RunFolder(folds.fold_path(out, number))
            try:
                if not (run.path / LAST).exists():
                    shutil.rmtree(run.path, ignore_errors=True)  # killed before its checkpoint
                    start_and_resume.train(
                        plan,
                        recipe=recipe,
                        devices=devices,
                        out=out,
                        seed=seed,
                        initial=initial,
                        callback=callback,
                        draw=draw,
                        name=run.path.name,
                    )
                elif run.manifest.files != plan.files:
                    what = f"{plan.root}: other images than those that {run.path} was trained on"
                    raise AlexNetError(f"{what}. Restore them, or choose another --out")
                elif not run.has_final_metrics:
                    start_and_resume.resume(run.path, devices=devices, callback=callback, draw=draw)
            except Interrupted as error:
                line = f"stopped in {run.path}; the same command continues it"
                raise Interrupted(line, error.exit_code) from None
