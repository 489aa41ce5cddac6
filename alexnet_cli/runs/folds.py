"""The folder of a cross-validation: a run for each fold, and crossval.json, which they have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alexnet_cli.errors import AlexNetError
from alexnet_cli.runs.run_folder import METRICS
from alexnet_cli.system import strict_json
from alexnet_cli.system.atomic_files import open_file, write_json

CROSSVAL = "crossval.json"
MOST_FOLDS = 1000


def fold_path(out: Path, number: int) -> Path:
    """Return the run folder of a fold of the cross-validation in `out`; the first number is 1."""
    return out / f"fold-{number}"


def begin(out: Path, settings: dict[str, Any]) -> None:
    """Make `out` the folder of a cross-validation with these settings, plain data for JSON.

    Raises `AlexNetError` if `out` contains anything else, or one that began with other settings.
    """
    path = out / CROSSVAL
    if path.exists():
        begun = _read(path)
        for name, value in settings.items():
            if begun.get(name) != value:
                reason = f"began with another {name.replace('_', ' ')}"
                raise AlexNetError(f"{out}: {reason}. Choose another --out")
    elif out.exists() and any(not item.name.startswith(".") for item in out.iterdir()):
        raise AlexNetError(f"{out}: is not empty and no cross-validation. Choose another --out")
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)


def find_folds(path: Path) -> list[Path] | None:
    """Return the run folders of the cross-validation at `path`; None if `path` is something else.

    Raises `AlexNetError` if a fold is not trained yet.
    """
    if not (path / CROSSVAL).is_file():
        return None
    folds = _read(path / CROSSVAL).get("folds")
    if type(folds) is not int or not 1 < folds <= MOST_FOLDS:
        raise AlexNetError(f"{path / CROSSVAL}: 'folds' can't be {folds!r:.60}")
    found = [fold_path(path, number) for number in range(1, folds + 1)]
    for run in found:
        if not (run / METRICS).exists():
            raise AlexNetError(f"{run}: not trained yet. Repeat the command alexnet crossval")
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        with open_file(path, strict_json.MOST_BYTES) as file:
            found = strict_json.loads(file.read())
        if not isinstance(found, dict):
            raise ValueError("is not a JSON object")
    except (OSError, ValueError) as error:
        raise AlexNetError(f"{path}: can't be read: {error}") from None
    return found
