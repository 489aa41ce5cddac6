"""The folder of a cross-validation: a run for each fold, and crossval.json with their number."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le

from alexnet_cli.errors import AlexNetError
from alexnet_cli.runs.run_folder import METRICS
from alexnet_cli.system import strict_json
from alexnet_cli.system.atomic_files import open_file, write_json

CROSSVAL = "crossval.json"
Folds = Annotated[int, Ge(2), Le(1000)]


def begin(out: Path, folds: int) -> list[Path]:
    """Make `out` the folder of a cross-validation, if it is not yet; return the folders of its runs.

    Raises `AlexNetError` if `out` contains anything else, or other folds.
    """
    if (out / CROSSVAL).exists():
        if (begun := _read(out)) != folds:
            raise AlexNetError(f"{out}: began with {begun} folds. Choose another --out")
    elif out.exists() and any(not item.name.startswith(".") for item in out.iterdir()):
        raise AlexNetError(f"{out}: is not empty and no cross-validation. Choose another --out")
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / CROSSVAL, {"folds": folds})
    return _runs(out, folds)


def find_folds(path: Path) -> list[Path] | None:
    """Return the run folders of the cross-validation at `path`; None if `path` is something else.

    Raises `AlexNetError` if a fold is not trained yet.
    """
    if not (path / CROSSVAL).is_file():
        return None
    runs = _runs(path, _read(path))
    for run in runs:
        if not (run / METRICS).exists():
            raise AlexNetError(f"{run}: not trained yet. Repeat the command alexnet crossval")
    return runs


def _runs(out: Path, folds: int) -> list[Path]:
    return [out / f"fold-{number}" for number in range(1, folds + 1)]


def _read(out: Path) -> int:
    path = out / CROSSVAL
    try:
        with open_file(path, strict_json.MOST_BYTES) as file:
            folds: int = strict_json.parse(Folds, strict_json.loads(file.read())["folds"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AlexNetError(f"{path}: can't be read: {error}") from None
    return folds
