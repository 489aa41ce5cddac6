"""Images that have moved since the training: given anew once, checked, and remembered in the run."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import QUICK, assert_same_run, paint, run, sign

import alexnet_cli as alexnet
from alexnet_cli.errors import AlexNetError
from alexnet_cli.recipes.presets import RECIPES
from alexnet_cli.reports.reproduce import train_commands
from alexnet_cli.runs.moved_data import MOVED_DATA
from alexnet_cli.runs.run_folder import RunFolder
from alexnet_cli.training import start_and_resume
from alexnet_cli.training.devices import choose_devices


def test_moved_images_are_found_ever_after(moved, trained):
    """Oracle: the report of the run whose images are where they were; the untouched bytes of the run."""
    path, new = moved
    kept = {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}
    with pytest.raises(AlexNetError, match=r"^moved_data: needed, as .*old does not hold"):
        alexnet.load(path).evaluate()
    expected = alexnet.load(trained).evaluate().details
    first = alexnet.load(path, moved_data=new).evaluate().details
    again = alexnet.load(path)
    for later in (first, again.evaluate().details, again.evaluate(new).details):
        assert later.data == str(new)
        assert later.score == expected.score
        assert (later.split, later.chose_epoch, later.n_trained_on) == ("val", True, 0)
    assert {name: (path / name).read_bytes() for name in kept} == kept
    assert {file.name for file in path.iterdir()} == {*kept, MOVED_DATA}


def test_a_moved_run_is_resumed_bit_for_bit(moved, trained, tmp_path):
    """Oracle: the run whose images are where they were, resumed to the same epoch."""
    path, new = moved
    whole = Path(shutil.copytree(trained, tmp_path / "whole"))
    start_and_resume.resume(whole, devices=choose_devices(0), epochs=5)
    with pytest.raises(AlexNetError, match="does not hold the images"):
        start_and_resume.resume(path, devices=choose_devices(0), epochs=5)
    start_and_resume.resume(path, devices=choose_devices(0), epochs=5, moved_data=new)
    assert_same_run(path, whole)
    assert RunFolder(path).manifest.root == new


def test_the_folder_of_another_worker_is_not_remembered(moved):
    """Oracle: the folder in this process, and none on disk."""
    path, new = moved
    folder = RunFolder(path)
    folder.move_data(new, remember=False)
    assert folder.images().root == new
    assert not (path / MOVED_DATA).exists()


def test_moved_class_folders_are_still_their_own_source(moved):
    """Oracle: one command that trains in the new folder, and none that splits."""
    path, new = moved
    folder = RunFolder(path)
    folder.move_data(new)
    assert folder.manifest.source == new
    config = replace(folder.config, recipe=RECIPES["paper"])  # which has a name
    (command,) = train_commands(config, folder.manifest, config.recipe.epochs)
    assert command.startswith(f"alexnet train {new} ")


def _delete(count):
    def change(folder):
        for path in sorted(folder.rglob("*.png"))[:count]:
            path.unlink()

    return change


def _repaint(folder):
    shutil.rmtree(folder)
    paint(folder, per_class=12, seed=1)


@pytest.mark.parametrize(
    ("change", "n_bad"),
    [(_delete(3), 3), (_delete(36), 36), (_repaint, 36)],
    ids=["incomplete", "empty", "others of the same names"],
)
def test_another_folder_is_refused_and_not_remembered(moved, change, n_bad):
    """Oracle: the number of the 36 images that were deleted or replaced."""
    path, new = moved
    change(new)
    with pytest.raises(AlexNetError, match=f"{n_bad} of 36 checked are missing or diff") as refused:
        alexnet.load(path, moved_data=new)
    assert "\n" not in str(refused.value)
    assert not (path / MOVED_DATA).exists()


def test_one_image_may_be_missing_as_in_a_training(moved):
    """Oracle: 5 % of 36 is 1; three of the other images validate."""
    path, new = moved
    _delete(1)(new)
    assert alexnet.load(path, moved_data=new).evaluate().score.n == 3


def test_of_images_that_were_not_read_the_names_are_compared(moved):
    """Oracle: images of other content are taken, and the same images by other names are not."""
    path, new = moved
    text = (path / "manifest.jsonl").read_text()
    (path / "manifest.jsonl").write_text(re.sub(r"[0-9a-f]{64}", "", text))
    sign(path)
    _repaint(new)
    RunFolder(path).move_data(new)
    for image in new.rglob("*.png"):
        image.rename(image.with_suffix(".jpg"))
    with pytest.raises(AlexNetError, match="36 of 36 checked"):
        RunFolder(path).move_data(new)


def test_images_that_are_back_need_no_folder(moved, tmp_path):
    """Oracle: the manifest, which names `old`."""
    path, new = moved
    new.rename(tmp_path / "old")
    assert RunFolder(path).images().root == tmp_path / "old"


ATTACKS = {
    "not JSON": (b"{", "can't be read"),
    "a list": (b"[]", "can't be read"),
    "nothing": (b"{}", "can't be read"),
    "a number": (b'{"root": 3}', "can't be read"),
    "relative": (b'{"root": "../x"}', "must be an absolute path"),
    "a null": (b'{"root": "/a\\u0000b"}', "contains a null character"),
    "half a surrogate": (b'{"root": "/a\\ud800"}', "can't be read"),
    "a long name": (json.dumps({"root": "/" + "a" * 5000}).encode(), "does not hold the images"),
    "a file": (b'{"root": "/etc/passwd"}', "does not hold the images"),
    "another folder": (b'{"root": "/etc"}', "does not hold the images"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_file_of_a_stranger_is_refused_in_one_line(moved, attack):
    """Oracle: the file's name or the missing images; and the folder that is given replaces it."""
    path, new = moved
    content, message = ATTACKS[attack]
    (path / MOVED_DATA).write_bytes(content)
    with pytest.raises(AlexNetError, match=message) as refused:
        alexnet.load(path).evaluate()
    assert "\n" not in str(refused.value)
    assert alexnet.load(path, moved_data=new).evaluate().score.n == 3


def test_a_link_in_place_of_the_file_is_neither_read_nor_written(moved, tmp_path):
    """Oracle: the bytes of the link's target."""
    path, new = moved
    outside = tmp_path / "outside.json"
    outside.write_text(json.dumps({"root": str(new)}))
    before = outside.read_bytes()
    (path / MOVED_DATA).symlink_to(outside)
    with pytest.raises(AlexNetError, match=r"moved_data\.json: can't be read: it is a link"):
        RunFolder(path).images()
    RunFolder(path).move_data(new)
    assert not (path / MOVED_DATA).is_symlink()
    assert outside.read_bytes() == before


def test_a_pipe_in_place_of_the_file_is_refused(moved):
    """Oracle: the name of the file; whoever opened the pipe would wait for ever."""
    path, _ = moved
    os.mkfifo(path / MOVED_DATA)
    with pytest.raises(AlexNetError, match=r"moved_data\.json: can't be read: is not a regular"):
        RunFolder(path).images()


def test_a_file_of_weights_has_no_images_to_move(moved):
    """Oracle: the argument and its value."""
    _, new = moved
    with pytest.raises(
        AlexNetError, match=r"moved_data='.*new': x\.npy does not record its images"
    ):
        alexnet.load("x.npy", moved_data=new)


def test_a_moved_split_is_recognized(image_folder, tmp_path):
    """Oracle: shards, whose images have a checksum in their shard; three of 36 validate."""
    alexnet.split(image_folder, tmp_path / "old", prepare=True)
    trained = run(tmp_path / "old", tmp_path / "runs", replace(QUICK, epochs=1)).run
    (tmp_path / "old").rename(tmp_path / "new")
    with pytest.raises(AlexNetError, match=r"old does not hold the images"):
        start_and_resume.resume(trained, devices=choose_devices(0), epochs=2)
    report = alexnet.load(trained, moved_data=tmp_path / "new").evaluate()
    assert (report.score.n, report.details.chose_epoch) == (3, True)
    shard = next((tmp_path / "new").glob("*train*"))
    shard.rename(shard.with_suffix(".lost"))
    with pytest.raises(AlexNetError, match="33 of 36 checked"):
        alexnet.load(trained, moved_data=tmp_path / "new")
