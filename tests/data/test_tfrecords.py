"""Prepared splits: contents of the shards, other readers, interruption and resume."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers import QUICK, TINY, evaluate, paint, predict, run
from PIL import Image
from typer.testing import CliRunner

from alexnet_cli.cli.app import app
from alexnet_cli.data import images, scanning, split_folders, tfrecords
from alexnet_cli.data.manifest import MANIFEST, ImageFile, read_manifest
from alexnet_cli.data.shard_records import read_record
from alexnet_cli.data.split_plan import plan_split
from alexnet_cli.data.store import load_image
from alexnet_cli.errors import AlexNetError, UsageError
from alexnet_cli.recipes.presets import NOTEBOOK

FLOWERS = Path(__file__).parents[2] / "examples" / "flowers"


@pytest.fixture
def plan(image_folder, monkeypatch):
    """A plan of 36 images, at most 5 in a shard."""
    monkeypatch.setattr(tfrecords, "PER_SHARD", 5)
    return plan_split(scanning.scan(image_folder), val=0.25, seed=3)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_tensorflow_reads_every_image_once(plan, tmp_path):
    """Oracle: TFRecordDataset, which checks the checksums, and TensorFlow's JPEG decoder."""
    written = tfrecords.write(plan, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").glob("*.tfrecord"))
    assert names == [f"train-{n:05d}-of-00006.tfrecord" for n in range(6)] + [
        f"val-{n:05d}-of-00002.tfrecord" for n in range(2)
    ]
    features = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
        "image/class/text": tf.io.FixedLenFeature([], tf.string),
        "image/filename": tf.io.FixedLenFeature([], tf.string),
    }
    seen = {}
    for name in names:
        for record in tf.data.TFRecordDataset(str(tmp_path / "out" / name)):
            example = tf.io.parse_single_example(record, features)
            label = example["image/class/text"].numpy().decode()
            assert written.classes[int(example["image/class/label"])] == label
            key = (name[: name.index("-")], label, example["image/filename"].numpy().decode())
            assert key not in seen
            seen[key] = tf.io.decode_jpeg(
                example["image/encoded"], dct_method="INTEGER_ACCURATE"
            ).numpy()
    assert seen.keys() == {(file.split, file.label, file.path.name) for file in plan.files}
    for file in written.files:
        theirs = seen[file.split, file.label, file.path.name].astype(int)
        ours = load_image(file, replace(TINY, resize_size=256)).astype(int)
        assert np.abs(ours - theirs).max() <= 1


def test_manifest_equals_that_of_a_copied_split(plan, tmp_path):
    """Oracle: the same plan, copied; the returned manifest equals the one on disk."""
    prepared = tfrecords.write(plan, tmp_path / "prepared")
    copied = split_folders.write(plan, tmp_path / "copied")
    assert split_folders.open_data(tmp_path / "prepared") == prepared
    for one, other in zip(prepared.files, copied.files, strict=True):
        below = one.path.relative_to(tmp_path / "prepared")
        assert below == other.path.relative_to(tmp_path / "copied")
        assert (one.label, one.split, one.sha256) == (other.label, other.split, other.sha256)
    os.rename(tmp_path / "prepared", tmp_path / "elsewhere")
    moved = split_folders.open_data(tmp_path / "elsewhere")
    np.testing.assert_array_equal(load_image(moved.files[0], TINY).shape, (72, 72, 3))


def test_records_differ_from_the_images_by_jpeg_only(tmp_path):
    """Oracle: the resized image itself; the stated mean difference is 3 of 255."""
    source = tmp_path / "source"
    for label in ("roses", "tulips"):
        (source / label).mkdir(parents=True)
        for path in sorted((FLOWERS / label).iterdir())[:6]:
            os.link(path, source / label / path.name)
    written = tfrecords.write(plan_split(scanning.scan(source)), tmp_path / "out")
    for file in written.files:
        original = images.load(source / file.label / file.path.name, 256).astype(int)
        ours = load_image(file, replace(TINY, resize_size=256)).astype(int)
        assert np.abs(ours - original).mean() < 3


def test_order_within_shards_is_random(plan, tmp_path):
    """Oracle: sorted by class, 27 images of three classes would change class twice."""
    written = tfrecords.write(plan, tmp_path / "out")
    train = sorted(written.of("train"), key=lambda file: (file.record.shard, file.record.offset))
    labels = [file.label for file in train]
    assert sum(a != b for a, b in pairwise(labels)) > 8


def test_resume_after_the_last_complete_shard(plan, tmp_path, monkeypatch):
    """Oracle: the bytes of an uninterrupted run; only missing images are encoded."""
    tfrecords.write(plan, tmp_path / "whole")

    def interrupt(done, total):
        if done == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tfrecords.write(plan, tmp_path / "out", progress=interrupt)
    assert not (tmp_path / "out").exists()
    calls = []
    tfrecords.write(
        plan, tmp_path / "out", progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(n, 36) for n in range(16, 37)]  # three shards were complete
    whole, again = tree(tmp_path / "whole"), tree(tmp_path / "out")
    whole[MANIFEST] = whole[MANIFEST].replace(b"/whole", b"/out")
    assert again == whole
    assert not list(tmp_path.glob(".*"))


def test_another_plan_discards_the_shards_of_a_killed_process(image_folder, tmp_path):
    """Oracle: a process that dies halfway, then another seed, against a clean start."""
    code = f"""
import os
from pathlib import Path
from alexnet_cli.data import scanning, tfrecords, split_folders
from alexnet_cli.data.split_plan import plan_split
tfrecords.PER_SHARD = 5
plan = plan_split(scanning.scan(Path({str(image_folder)!r})), seed=1)
tfrecords.write(plan, Path({str(tmp_path / "out")!r}), progress=lambda d, t: d < 12 or os._exit(9))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 9
    assert len(list((tmp_path / ".out.alexnet-preparing").glob("*.tfrecord"))) == 3
    plan = plan_split(scanning.scan(image_folder), seed=2)
    tfrecords.write(plan, tmp_path / "out")
    tfrecords.write(plan, tmp_path / "clean")
    assert {n: c for n, c in tree(tmp_path / "out").items() if n != MANIFEST} == {
        n: c for n, c in tree(tmp_path / "clean").items() if n != MANIFEST
    }


def test_two_processes_can_not_prepare_one_folder(plan, tmp_path):
    """Oracle: the error of the second call while the first one writes."""
    calls = []

    def intrude(done, total):
        if not calls:
            calls.append(done)
            with pytest.raises(AlexNetError, match="out: another alexnet process is writing it"):
                tfrecords.write(plan, tmp_path / "out")

    tfrecords.write(plan, tmp_path / "out", progress=intrude)
    assert calls


def test_undecodable_images_are_skipped_and_listed(tmp_path):
    """Oracle: an unchecked folder with a text file named like an image."""
    source = paint(tmp_path / "source", per_class=6)
    (source / "red" / "bad.jpg").write_text("no image")
    plan = plan_split(scanning.scan(source, scanning.ScanOptions(check=False)))
    assert len(plan.files) == 19
    written = tfrecords.write(plan, tmp_path / "out")
    assert len(written.files) == 18
    assert all(len(file.sha256) == 64 for file in written.files)
    (rejected,) = written.rejected
    assert (rejected.path.name, rejected.reason) == ("bad.jpg", "is not an image")
    assert read_manifest(tmp_path / "out" / MANIFEST).rejected == written.rejected


def test_a_split_is_not_prepared_over_itself(image_folder, tmp_path, monkeypatch):
    """Oracle: every byte of the split, whose source is gone; also for a relative path."""
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "source"
    shutil.copytree(image_folder, source)
    plan = plan_split(scanning.scan(source))
    split_folders.write(plan, tmp_path / "data")
    shutil.rmtree(source)
    before = sorted((path, path.stat().st_size) for path in tmp_path.rglob("*"))
    for out in ("data", "data/prepared"):
        done = CliRunner().invoke(app, ["split", "data", "--prepare", "--force", "--out", out])
        assert "is inside the source" in str(done.exception)
        with pytest.raises(AlexNetError, match="is inside the source"):
            tfrecords.write(split_folders.open_data(tmp_path / "data"), tmp_path / out, force=True)
    assert sorted((path, path.stat().st_size) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("ours", [True, False])
def test_bad_images_of_a_split_are_listed_by_their_source_path(image_folder, tmp_path, ours):
    """Oracle: the truncated image by its path in the source; all others are prepared.

    A split by another tool is its own source.
    """
    plan = plan_split(scanning.scan(image_folder))
    split = split_folders.write(plan, tmp_path / "data")
    if not ours:
        (tmp_path / "data" / MANIFEST).unlink()
        split = split_folders.open_data(tmp_path / "data")
    bad = split.of("train")[1].path
    bad.write_bytes(bad.read_bytes()[:40])
    tfrecords.write(split, tmp_path / "out")
    prepared = read_manifest(tmp_path / "out" / MANIFEST)
    (rejected,) = prepared.rejected
    before = image_folder / bad.relative_to(tmp_path / "data" / "train")
    assert rejected.path == (before if ours else bad)
    assert len(prepared.files) == len(plan.files) - 1


def test_a_flipped_bit_is_an_error(plan, tmp_path):
    """Oracle: the names of image and shard in the message; other records are still read."""
    written = tfrecords.write(plan, tmp_path / "out")
    file = written.files[4]
    content = bytearray(file.record.shard.read_bytes())
    content[file.record.offset + file.record.length // 2] ^= 1
    file.record.shard.write_bytes(content)
    with pytest.raises(AlexNetError, match=rf"{file.path.name}: is damaged in {file.split}-0"):
        load_image(file, TINY)
    load_image(written.files[5], TINY)
    file.record.shard.unlink()
    with pytest.raises(
        AlexNetError, match=rf"No such file or directory: .*{file.split}-0.*tfrecord"
    ):
        load_image(file, TINY)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"shard": "../x"}, "'shard' '../x' is not a file beside the manifest"),
        ({"shard": ".."}, "'shard' '..' is not a file beside"),
        ({"offset": -1}, r"'offset', 'length' and 'crc32' can't be \[-1, "),
        ({"length": "9"}, "'length' can't be '9'"),
    ],
)
def test_invalid_record_in_a_manifest_is_refused(plan, tmp_path, change, complaint):
    """Oracle: line, field and value in the message."""
    tfrecords.write(plan, tmp_path / "out")
    path = tmp_path / "out" / MANIFEST
    header, first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([header, json.dumps({**json.loads(first), **change}), *rest]))
    with pytest.raises(AlexNetError, match=rf"jsonl:2: {complaint}"):
        read_manifest(path)


def test_a_recipe_that_needs_the_original_is_refused(plan, tmp_path):
    """Oracle: the name of the recipe in the message."""
    file = tfrecords.write(plan, tmp_path / "out").files[0]
    for recipe in (NOTEBOOK, replace(TINY, resize_size=288)):
        with pytest.raises(AlexNetError, match=f"prepared image of 256x256.* recipe {recipe.name}"):
            load_image(file, recipe)


def test_a_split_by_another_tool_is_kept(image_folder, tmp_path):
    """Oracle: split and class folder of each file."""
    plan = plan_split(scanning.scan(image_folder), val=0.3)
    split_folders.write(plan, tmp_path / "theirs")
    (tmp_path / "theirs" / MANIFEST).unlink()
    arguments = ["split", str(tmp_path / "theirs"), "--prepare", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0
    assert "--recipe paper" in done.output.splitlines()[-1]  # the default takes no squares
    ours = split_folders.open_data(tmp_path / "out")
    expected = split_folders.open_data(tmp_path / "theirs")
    assert [(f.path.parts[-3:], f.sha256) for f in ours.files] == [
        (f.path.parts[-3:], f.sha256) for f in expected.files
    ]
    for option, value in (("--seed", "1"), ("--link", "hard")):
        refused = CliRunner().invoke(app, [*arguments, option, value, "--force"])
        assert isinstance(refused.exception, UsageError)
        assert refused.exception.argument == option[2:]
        assert "leave it out" in refused.exception.reason
    with pytest.raises(AlexNetError, match="out: is already prepared"):
        tfrecords.write(ours, tmp_path / "again")


def test_prepared_and_copied_splits_give_similar_results(image_folder, tmp_path, monkeypatch):
    """Oracle: the copied split; probabilities within 0.02, as JPEG changes pixels."""
    plan = plan_split(scanning.scan(image_folder), val=0.3)
    copied = split_folders.write(plan, tmp_path / "copied")
    prepared = tfrecords.write(plan, tmp_path / "prepared")
    trained = {}
    for data in (copied, prepared):
        report = run(data.root, tmp_path / f"runs-{data.root.name}", QUICK)
        trained[data.root.name] = report
        assert report.best.val.top1 == 1  # three colors
    model = [trained["copied"].run]
    one = evaluate(model, copied.root)
    other = evaluate(model, prepared.root)
    assert other.score.n == one.score.n
    assert other.score.loss == pytest.approx(one.score.loss, abs=0.02)
    ours = predict([prepared.root], model)
    theirs = {p.file.path.parts[-3:]: p for p in predict([copied.root], model)}
    assert len(ours) == len(theirs) == 36
    for p in ours:
        expected = theirs[p.file.path.parts[-3:]]
        chances = dict(zip(expected.classes, expected.probabilities))
        for name, probability in zip(p.classes, p.probabilities):
            assert probability == pytest.approx(chances[name], abs=0.02)


def test_records_are_upright_and_opaque(tmp_path):
    """Oracle: `images.load` of the file itself."""
    exif = Image.Exif()
    exif[0x0112] = 6
    half = Image.fromarray(np.full((300, 400, 3), (200, 30, 30), np.uint8))
    half.paste((30, 30, 200), (0, 0, 200, 300))
    clear = half.convert("RGBA")
    clear.putalpha(128)
    for label in ("a", "b"):
        (tmp_path / "source" / label).mkdir(parents=True)
        half.save(tmp_path / "source" / label / f"{label}turned.jpg", exif=exif, quality=95)
        clear.save(tmp_path / "source" / label / f"{label}clear.png")
    options = scanning.ScanOptions(check=False)
    plan = plan_split(scanning.scan(tmp_path / "source", options))
    for file in tfrecords.write(plan, tmp_path / "out").files:
        original = images.load(tmp_path / "source" / file.label / file.path.name, 256)
        with Image.open(BytesIO(read_record(file.record))) as jpeg:
            assert (jpeg.mode, jpeg.size) == ("RGB", (256, 256))
            assert np.abs(np.asarray(jpeg).astype(int) - original).mean() < 3


def test_an_image_without_record_is_read_from_its_file(image_folder):
    """Oracle: `images.load` of the file."""
    path = next((image_folder / "red").iterdir())
    np.testing.assert_array_equal(load_image(ImageFile(path), TINY), images.load(path, 72))
