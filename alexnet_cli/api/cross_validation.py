"""Judge every image once: train on all folds but one, in turn, and pool the results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexnet_cli.api.arguments import Count, Seed, as_folder, as_path, check_argument, path_errors
from alexnet_cli.api.evaluations import Report
from alexnet_cli.api.models import load
from alexnet_cli.api.runs import choose_recipe, draw_curves
from alexnet_cli.data import scan_cache, split_folders
from alexnet_cli.data.scanning import ScanOptions
from alexnet_cli.data.split_plan import plan_folds
from alexnet_cli.errors import UsageError
from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.runs.folds import Folds
from alexnet_cli.runs.run_folder import METRICS
from alexnet_cli.system import tensorflow_startup

if TYPE_CHECKING:
    from alexnet_cli.training.callbacks import Callback


@path_errors()
def crossval(
    data: str | Path = "data",
    *,
    folds: int = 5,
    recipe: str | Recipe | None = None,
    variants: Iterable[str] = (),
    overrides: Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    gpus: int | None = None,
    precision: str = "auto",
    weights: str | Path | None = None,
    check: bool = True,
    seed: int = 0,
    out: str | Path = "crossval",
    processes: bool = False,
    callback: Callback | None = None,
) -> Report:
    """Judge every image of a folder once, by a network that was not trained on it.

    The images are divided into folds, each class equally; equal images and groups stay in one fold.
    For each fold a network is trained on the others, of which a tenth is validation.

    Args:
        data: as for `train`; the division of a split is ignored.
        folds: the number of folds, and of networks.
        seed: also seeds the folds.
        out: the folder of the run folders fold-1, fold-2, … and of the pooled report. If it was
            interrupted, the same call continues.
        recipe, variants, overrides, settings, epochs, batch_size, learning_rate, gpus, precision,
            weights, check, processes, callback: as for `train`.

    Returns the report of all images, pooled, which is also written to `out` as metrics.json,
    report.html, suspects.csv and confusion-folds.png. Raises `AlexNetError` as `train` does, and if
    `out` holds anything else.
    """
    check_argument("folds", folds, Folds)
    check_argument("seed", seed, Seed)
    check_argument("gpus", gpus, Count | None)
    data, out = as_path("data", data), as_folder("out", out)
    if data.is_dir() and data.resolve() in out.resolve().parents:
        reason = f"is inside {data}, whose folders are classes. Choose another folder"
        raise UsageError(reason, argument="out", value=str(out))
    shorthands = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    chosen, initial = choose_recipe(recipe, variants, overrides, settings, shorthands, weights)
    tensorflow_startup.load_tensorflow()
    from alexnet_cli.training.callbacks import Callback
    from alexnet_cli.training.cross_validation import train_folds
    from alexnet_cli.training.devices import choose_devices

    callback = callback or Callback()
    devices = choose_devices(gpus, precision)
    cache = scan_cache.cache_path(out)
    options = ScanOptions(check, cache, callback.on_read_progress, processes)
    plans = plan_folds(split_folders.open_data(data, seed=None, options=options), folds, seed)
    train_folds(
        plans,
        recipe=chosen,
        devices=devices,
        out=out,
        seed=seed,
        initial=initial,
        callback=callback,
        draw=draw_curves,
    )
    scan_cache.delete_cache(out)
    report = load(out).evaluate(progress=callback.on_score_progress)
    report.save_json(out / METRICS)
    report.save_html(out / "report.html")
    report.save_suspects(out / "suspects.csv")
    report.plot_confusion(out / "confusion-folds.png")
    return report
