"""Photographs as files and as prepared shards: bytes, and images per second and core.

python -m benchmarks.forms [FOLDER]
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from alexnet_cli.data import scanning, tfrecords
from alexnet_cli.data.manifest import Manifest
from alexnet_cli.data.split_plan import plan_split
from alexnet_cli.data.store import load_image
from alexnet_cli.recipes.presets import PAPER
from alexnet_cli.system import tensorflow_startup
from benchmarks.common import folder_of_photographs, line


def rate(data: Manifest) -> float:
    """Return the images that one thread reads in a second of its time, in random order."""
    order = np.random.default_rng(0).permutation(len(data.files))[:1000]
    for index in order:  # so that the files are in the system's cache
        data.files[index].stored_in.read_bytes()
    began = time.process_time()
    for index in order:
        load_image(data.files[index], PAPER)
    return len(order) / (time.process_time() - began)


def main() -> None:
    """Compare both forms."""
    tensorflow_startup.load_tensorflow()
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_split(scanning.scan(folder_of_photographs()))
        began = time.perf_counter()
        prepared = tfrecords.write(plan, Path(folder, "prepared"))
        seconds = time.perf_counter() - began
        n = len(plan.files)
        n_bytes = sum(file.path.stat().st_size for file in plan.files) / n
        shard_bytes = sum(path.stat().st_size for path in prepared.root.iterdir()) / n
        line("files", f"{n_bytes / 1000:.1f} kB/image")
        line("shards, manifest included", f"{shard_bytes / 1000:.1f} kB/image")
        line("preparing", f"{n / seconds:.0f} images/s")
        files, records = rate(plan), rate(prepared)
        line("files", f"{files:.0f} images/s/core")
        line("shards", f"{records:.0f} images/s/core", records / files)


if __name__ == "__main__":
    main()
