"""Cross-validation: a run for each fold; what was interrupted goes on when it is called again."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
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
    callback: Callback,
    draw: Draw,
) -> None:
    """Train `recipe` on each of `plans`, as `plan_folds` returns them, in `out`/fold-1, fold-2, …

    Trained folds are kept, and one that was interrupted is resumed. Raises `AlexNetError` if those
    in `out` began otherwise.
    """
    runs = [RunFolder(path) for path in folds.begin(out, len(plans))]
    with own_lock_file(out / LOCK, f"{out}: another alexnet is training its folds"):
        for run, plan in zip(runs, plans, strict=True):
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
                    continue
                config = replace(
                    run.config,
                    recipe=recipe,
                    seed=seed,
                    precision=devices.precision,
                    initial_weights=str(initial.path) if initial else None,
                )
                if config != run.config or run.manifest.files != plan.files:
                    what = f"{run.path}: began with other options or images"
                    raise AlexNetError(f"{what}. Choose another --out")
                if not run.has_final_metrics:
                    start_and_resume.resume(run.path, devices=devices, callback=callback, draw=draw)
            except Interrupted as error:
                line = f"stopped in {run.path}; the same command continues it"
                raise Interrupted(line, error.exit_code) from None
