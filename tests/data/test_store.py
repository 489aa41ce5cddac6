"""The image store against the decoder, in memory, on disk and without space; bad images."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import TINY
from noise import image_files, noise_files
from PIL import Image

from alexnet_cli.data.statistics import compute_statistics
from alexnet_cli.data.store import BadImageBudget, ImageStore, load_image
from alexnet_cli.errors import AlexNetError, ImageError


@pytest.fixture
def paths(tmp_path):
    """Six files of noise."""
    return noise_files(tmp_path)


@pytest.mark.parametrize(("location", "room"), [("in memory", (10**9, 0)), ("on disk", (0, 10**9))])
def test_store_returns_what_the_decoder_returns(paths, tmp_path, location, room):
    """Oracle: `load_image`, also the second time, and also when the file is gone by then."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    store = ImageStore(image_files(paths), TINY, scratch, *room)
    assert store.location == location
    expected = [load_image(file, TINY) for file in store.files]
    for index in (3, 0, 5, 1, 2, 4):
        np.testing.assert_array_equal(store.get(index), expected[index])
    for path in paths:
        path.unlink()
    for index in range(6):
        np.testing.assert_array_equal(store.get(index), expected[index])
    assert list(scratch.iterdir()) == []  # a file without a name can't be left behind


def test_disk_space_is_reserved_in_advance(paths, tmp_path, monkeypatch):
    """Oracle: the allocated blocks of the file cover its bytes; on a full disk there is no file.

    Writing to a sparse file that is mapped would end the process once the disk is full.
    """
    found = []
    reserve = os.posix_fallocate

    def reserve_and_record(descriptor, start, count):
        reserve(descriptor, start, count)
        found.append((os.fstat(descriptor).st_blocks * 512, count))

    monkeypatch.setattr(os, "posix_fallocate", reserve_and_record)
    ImageStore(image_files(paths), TINY, tmp_path, 0, 10**9)
    ((taken, count),) = found
    assert taken >= count == 6 * 72 * 72 * 3

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    store = ImageStore(image_files(paths), TINY, tmp_path, 0, 10**9)
    assert store.location is None
    np.testing.assert_array_equal(store.get(2), load_image(store.files[2], TINY))


def test_without_space_images_are_decoded_on_every_access(paths, tmp_path):
    """Oracle: the image that replaced the first one is returned; nothing is written."""
    store = ImageStore(image_files(paths), TINY, tmp_path, 0, 0)
    assert store.location is None
    before = store.get(0)
    np.testing.assert_array_equal(store.get(0), before)
    paths[0].write_bytes(paths[1].read_bytes())
    np.testing.assert_array_equal(store.get(0), store.get(1))
    assert {*tmp_path.iterdir()} == {*paths}


@pytest.mark.parametrize("room", [(10**9, 0), (0, 0)], ids=["kept", "decoded each time"])
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (
            lambda path: path.write_bytes(path.read_bytes()[:99]),
            "has changed since the data was split",
        ),
        (lambda path: Image.new("RGB", (9, 9)).save(path), "has changed since the data was split"),
        (lambda path: path.unlink(), "No such file or directory"),
    ],
    ids=["truncated", "replaced", "deleted"],
)
def test_bad_images_are_skipped_and_reported_once(paths, tmp_path, room, damage, reason):
    """Oracle: the statistics of the five other images alone."""
    reported = []
    files = image_files(paths)
    known = [replace(f, sha256=hashlib.sha256(f.path.read_bytes()).hexdigest()) for f in files]
    damage(paths[2])
    store = ImageStore(known, TINY, tmp_path, *room, on_bad_image=reported.append)
    found = [compute_statistics(store) for _ in range(2)][1]
    assert store.get(2) is None
    assert [rejected.path for rejected in store.bad_images] == [paths[2]]
    assert reported == list(store.bad_images)
    assert reason in reported[0].reason
    others = compute_statistics(ImageStore([*known[:2], *known[3:]], TINY, tmp_path))
    np.testing.assert_array_equal(found.mean_image, others.mean_image)
    np.testing.assert_array_equal(found.covariance, others.covariance)


@pytest.mark.parametrize(("n_files", "most"), [(1, 0), (2, 1), (39, 1), (40, 2), (100, 5)])
def test_budget_of_bad_images_is_five_percent(n_files, most):
    """Oracle: a twentieth by hand, at least one, and never all."""
    budget = BadImageBudget(n_files)
    for number in range(most):
        budget.add(ImageError("is gone", Path(f"{number}.jpg")))
    again = ImageError("is gone", Path("0.jpg"))
    with pytest.raises(AlexNetError, match=rf"x\.jpg: is gone\. {most + 1} of {n_files} images"):
        [budget.add(bad) for bad in (*[again] * most, ImageError("is gone", Path("x.jpg")))]
