"""Where the images of a run are, if they have moved since it began, and whether they are its images.

config.json and manifest.jsonl name the folder in which the training found them, and never change. A
new folder is given once, as `moved_data`, and remembered in moved_data.json beside them.
"""

from __future__ import annotations

import os
from pathlib import Path

from alexnet_cli.data.manifest import ImageFile, Manifest, evenly_spaced, require_name
from alexnet_cli.data.store import BAD_SHARE, load_image
from alexnet_cli.errors import AlexNetError, DataMovedError, ImageError
from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.runs.weights_file import reason
from alexnet_cli.system import strict_json
from alexnet_cli.system.atomic_files import open_file, write_json
from alexnet_cli.system.workers import map_in_order

MOVED_DATA = "moved_data.json"

# A wrong folder fails at nearly every image, and an incomplete copy at its share of them. So a sample
# tells, in seconds; of the others each is compared with its SHA-256 whenever it is read, as always.
SAMPLE = 200
_FEW = 20  # images of which one exists wherever the data is


def read_moved(run: Path) -> Path | None:
    """Return the folder to which the images of `run` have moved; None if they have not.

    Raises `AlexNetError` for a file that is damaged or a link.
    """
    path = run / MOVED_DATA
    try:
        with open_file(path, strict_json.MOST_BYTES) as file:
            root = strict_json.loads(file.read())["root"]
        require_name(root)
        if not Path(root).is_absolute():
            raise ValueError(f"root must be an absolute path. Received: {root!r:.60}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        why = reason(error) if isinstance(error, OSError) else error
        raise AlexNetError(f"{path}: can't be read: {why}. Delete it") from None
    return Path(root)


def write_moved(run: Path, root: Path) -> None:
    """Remember that the images of `run` are in `root`, an absolute path."""
    write_json(run / MOVED_DATA, {"root": str(root)})


def require_present(manifest: Manifest, run: Path) -> None:
    """Raise `DataMovedError` if no image of `run` is where it was: moved, deleted or not mounted."""
    few = evenly_spaced(manifest.files, _FEW)
    if few and not any(os.path.exists(file.stored_in) for file in few):
        raise DataMovedError(run, manifest.root)


def require_same_images(manifest: Manifest, recipe: Recipe, run: Path) -> None:
    """Raise `AlexNetError` unless the root of `manifest` holds the images of `run`.

    `SAMPLE` images at equal distances must be readable and have their SHA-256, or their checksum in a
    shard; of images that were not read before the training, only the names can be compared. As many
    may be missing or different as a training skips.
    """

    def find_problem(file: ImageFile) -> str | None:
        try:
            load_image(file, recipe)
        except ImageError as error:
            return str(error)
        return None

    sample = evenly_spaced(manifest.files, SAMPLE)
    problems = [problem for problem in map_in_order(sample, find_problem) if problem]
    n, n_bad = len(sample), len(problems)
    if n_bad and (n_bad == n or n_bad > max(1, BAD_SHARE * n)):
        raise AlexNetError(
            f"does not hold the images of {run}: {n_bad} of {n} checked are missing or different. "
            f"{problems[0]}",
            argument="moved_data",
            value=str(manifest.root),
        )
