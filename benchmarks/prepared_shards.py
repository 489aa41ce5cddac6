"""Prepared TFRecord shards against image files: bytes per image, and images per second and core.

python -m benchmarks.prepared_shards [FOLDER]
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
from benchmarks.common import image_folder, print_row

MOST_IMAGES = 1000


def loading_rate(data: Manifest) -> float:
    """Return the images per second of CPU time that one thread loads, in random order."""
    order = np.random.default_rng(0).permutation(len(data.files))[:MOST_IMAGES]
    for index in order:  # so that the files are in the page cache
        data.files[index].stored_in.read_bytes()
    began = time.process_time()
    for index in order:
        load_image(data.files[index], PAPER)
    return len(order) / (time.process_time() - began)


def main() -> None:
    """Compare size and loading rate of image files and shards."""
    tensorflow_startup.load_tensorflow()
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_split(scanning.scan(image_folder()))
        began = time.perf_counter()
        prepared = tfrecords.write(plan, Path(folder, "prepared"))
        seconds = time.perf_counter() - began
        n = len(plan.files)
        file_bytes = sum(file.path.stat().st_size for file in plan.files) / n
        shard_bytes = sum(path.stat().st_size for path in prepared.root.iterdir()) / n
        print_row("image files", f"{file_bytes / 1000:.1f} kB/image")
        print_row("shards and manifest", f"{shard_bytes / 1000:.1f} kB/image")
        print_row("writing the shards", f"{n / seconds:.0f} images/s")
        files, shards = loading_rate(plan), loading_rate(prepared)
        print_row("loading from image files", f"{files:.0f} images/s/core")
        print_row("loading from shards", f"{shards:.0f} images/s/core", shards / files)


if __name__ == "__main__":
    main()
