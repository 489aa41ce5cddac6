"""The configuration of a run, stored in config.json, and the versions it depends on."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata

from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.recipes.structure import check_structure
from alexnet_cli.system import strict_json
from alexnet_cli.version import __version__

FORMAT = 5
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class RunConfig:
    """The configuration of a run; it never changes after the start."""

    recipe: Recipe
    classes: tuple[str, ...]
    seed: int
    precision: str  # one of `PRECISIONS`
    data: str  # the folder of the images
    versions: dict[str, str]  # as `current_versions` returns them
    initial_weights: str | None  # the model whose weights the training started from

    def check(self) -> None:
        """Raise `ValueError` unless this configuration can be trained."""
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}")
        if not self.classes or len(set(self.classes)) < len(self.classes) or self.seed < 0:
            raise ValueError("classes must be distinct and not empty, and the seed 0 or more")
        check_structure(self.recipe, len(self.classes))


def parse_config(content: bytes) -> RunConfig:
    """Return the configuration in the content of a config.json, which may be from anyone.

    Raises `ValueError` with the name of the first field that is missing or invalid.
    """
    data = strict_json.loads(content)
    if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
        raise ValueError("written by another version of alexnet; train again")
    config = strict_json.parse(RunConfig, data)
    config.check()
    return config


def current_versions() -> dict[str, str]:
    """Return software versions, platform and number of threads, on which the exact bits depend."""
    packages = ("tensorflow", "keras", "numpy", "pillow")
    return {
        "alexnet": __version__,
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in packages},
        "platform": f"{sys.platform} {platform.machine()}",
        "threads": os.environ.get("TF_NUM_INTRAOP_THREADS") or str(_n_processors()),
    }


def _n_processors() -> int | None:
    """Return the number of processors for this process; TensorFlow starts as many threads."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def changed_versions(before: Mapping[str, str]) -> tuple[str, ...]:
    """Return a text for each version that differs from `before`: `keras 3.15.1, now 3.16.0`."""
    now = current_versions()
    return tuple(
        f"{name} {before.get(name, '?')}, now {now[name]}"
        for name in now
        if before.get(name) != now[name]
    )
