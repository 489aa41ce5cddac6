"""The room of the decoded images: one budget for both splits, and for all workers of a machine."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import QUICK, paint

from alexnet_cli.data.manifest import ImageFile, Manifest
from alexnet_cli.data.statistics import Statistics
from alexnet_cli.runs.config import RunConfig, current_versions
from alexnet_cli.runs.run_folder import RunFolder
from alexnet_cli.system import memory
from alexnet_cli.training.callbacks import Callback
from alexnet_cli.training.cluster import Cluster
from alexnet_cli.training.devices import Devices, choose_devices
from alexnet_cli.training.step_memory import fits
from alexnet_cli.training.trainer import Trainer
from alexnet_cli.training.training_data import open_training_data

MB = 10**6
LARGE = replace(QUICK, resize_size=256)  # 0.197 MB an image
STATISTICS = Statistics(np.zeros((256, 256, 3), np.float32), np.eye(3))


@pytest.fixture
def allow(tmp_path, monkeypatch):
    """Return a function that limits this process to so many bytes more than it has now."""
    (tmp_path / "own").write_text("0::/\n")
    monkeypatch.setattr(memory, "_OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(memory, "_CGROUP_ROOT", tmp_path)

    def limit(more):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        (tmp_path / "memory.max").write_text(f"{pages * 4096 + more}")

    return limit


def manifest(folder, n_train, n_val):
    """List one image so many times."""
    path = paint(folder / "images", per_class=1) / "red" / "0.png"
    files = [ImageFile(path, "red", "train")] * n_train + [ImageFile(path, "red", "val")] * n_val
    return Manifest(folder, folder, ("blue", "red"), tuple(files), (), 0, val=0.5)


class Twins(Devices):
    """Workers that add up what each of them has, as all are alike; no network is needed."""

    def total(self, values):
        return values * len(self.cluster.workers)


def devices(*workers):
    found = choose_devices(0, "float32")
    if not workers:
        return found
    return Twins(found.strategy, found.names, found.precision, Cluster(workers, 0))


@pytest.mark.parametrize(
    ("n_train", "n_val", "workers", "expected"),
    [  # of 400 MB
        (1000, 900, (), ("in memory", "in memory")),  # 374 MB
        (1500, 1500, (), ("in memory", "on disk")),  # 295 MB each
        (3000, 1500, (), ("on disk", "in memory")),
        (1500, 3000, (), ("in memory", "on disk")),
        (900, 100, ("a:1", "b:1"), ("in memory", "in memory")),  # each has a machine
        (900, 100, ("a:1", "a:2"), ("in memory", "in memory")),  # 197 MB of 200
        (1100, 100, ("a:1", "a:2"), ("on disk", "in memory")),  # 216 MB of 200
        (500, 500, ("[::1]:1", "b:1", "[::1]:2", "[::1]:3"), ("in memory", "on disk")),  # of 133
    ],
)
def test_all_stores_of_a_machine_share_one_budget(
    tmp_path, allow, n_train, n_val, workers, expected
):
    """Oracle: images of 256 · 256 · 3 bytes against 0.4 of 1 GB, by hand."""
    files = manifest(tmp_path, n_train, n_val)
    allow(1000 * MB)
    found = open_training_data(files, LARGE, devices(*workers), tmp_path, Callback(), STATISTICS)
    assert (found.train.location, found.val.location) == expected


@pytest.mark.parametrize(("n_train", "n_val"), [(4, 1), (1, 4)])
def test_stores_share_the_disk_too(tmp_path, allow, monkeypatch, n_train, n_val):
    """Oracle: of a disk with 100 images' bytes free, both get 40 for one process, 20 for each of two."""
    image = 256 * 256 * 3
    free = shutil.disk_usage(tmp_path)._replace(free=100 * image)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    allow(-100 * MB)
    for workers, images in (((), 40), (("a:1", "a:2"), 20)):
        for more, expected in ((0, "on disk"), (1, None)):
            n = images // 5
            files = manifest(tmp_path / f"{len(workers)}{more}", n * n_train, n * n_val + more)
            found = open_training_data(
                files, LARGE, devices(*workers), tmp_path, Callback(), STATISTICS
            )
            assert (found.train.location, found.val.location) == ("on disk", expected)


@pytest.fixture
def trainer(tmp_path, allow):
    """A resumed training: 59 MB of images are still to be decoded."""
    files = manifest(tmp_path, 200, 100)
    allow(1000 * MB)
    data = open_training_data(files, LARGE, devices(), tmp_path, Callback(), STATISTICS)
    assert (data.train.location, data.val.location) == ("in memory", "in memory")
    config = RunConfig(
        recipe=LARGE,
        classes=files.classes,
        seed=0,
        precision="float32",
        data=str(tmp_path),
        versions=current_versions(),
        initial_weights=None,
    )
    return Trainer(RunFolder(tmp_path), config, data, devices(), Callback())


def test_the_images_still_to_be_decoded_count_as_needed_memory(trainer, allow):
    """Oracle: 59 MB of images and a step of less than 10 MB, against 40 MB and 80 MB.

    Once the images are decoded, the step alone is needed.
    """
    for more, expected in ((40 * MB, False), (80 * MB, True)):
        allow(more)
        assert fits(trainer, 4) == expected
    for store in trainer.data.stores.values():
        for index in range(len(store)):
            store.get(index)
    allow(40 * MB)
    assert fits(trainer, 4)
    assert not fits(trainer, 400)


def test_every_worker_of_a_machine_needs_memory_for_its_step(trainer, allow):
    """Oracle: three times 59 MB and a step of less than 10 MB, against 150 MB and 240 MB."""
    trainer.devices = devices("a:1", "a:2", "a:3")
    for more, expected in ((150 * MB, False), (240 * MB, True)):
        allow(more)
        assert fits(trainer, 4) == expected
