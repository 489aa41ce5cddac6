"""Paths that are wrong, gone or moved: one line, with the command to type."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest
from helpers import paint

from alexnet_cli.cli.options import describe_error
from alexnet_cli.errors import WrongPathError
from alexnet_cli.runs.moved_data import MOVED_DATA


def assert_one_line(found, code, *parts):
    assert found[0] == code
    assert found[2].startswith("alexnet: ")
    assert found[2].count("\n") == 1, found[2]
    for part in parts:
        assert part in found[2]


# Images that have moved

COMMANDS = [
    "train --resume {run} --epochs 5 --gpus 0",
    "evaluate --model {run}",
    "predict {image} --neighbors 2 --model {run}",
    "figures {run}",
    "export {run}",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_names_the_option_for_moved_images_and_takes_it(moved, alexnet, command):
    """Oracle: the line of each command with the option added; the folder that is then remembered."""
    run, new = moved
    words = command.format(run=run, image=new / "red" / "0.png").split()
    typed = shlex.join(["alexnet", *words, "--moved-data", "FOLDER"])
    found = alexnet(*words)
    assert_one_line(found, 1, "--moved-data: needed, as ", f"old does not hold the images of {run}")
    assert found[2].endswith(f". Type: {typed}\n")
    code, _, err = alexnet(*words, "--moved-data", new)
    assert (code, err) == (0, "")
    assert json.loads((run / MOVED_DATA).read_text()) == {"root": str(new)}


def test_commands_find_the_images_that_another_command_was_given(moved, alexnet):
    """Oracle: neighbors below the new folder; the 3 validation images of the run."""
    run, new = moved
    image = new / "red" / "0.png"
    assert alexnet("evaluate", "--model", run, "--moved-data", new)[0] == 0
    code, out, _ = alexnet("predict", image, "--neighbors", 2, "--model", run, "--json")
    near = [item["path"] for item in json.loads(out)[0]["neighbors"]]
    assert code == 0
    assert len(near) == 2
    assert all(Path(path).is_relative_to(new) for path in near)
    code, out, _ = alexnet("evaluate", "--model", run, "--json")
    assert (code, json.loads(out)["one_crop"]["n"]) == (0, 3)


def test_moved_images_belong_to_a_run(moved, alexnet):
    """Oracle: exit code 2, and the right place for the images of a new run and of an old one."""
    run, new = moved
    assert_one_line(alexnet("train", new, "--moved-data", new), 2, "belongs to --resume")
    found = alexnet("train", new, "--resume", run)
    assert_one_line(found, 2, "leave out DATA, or give --moved-data if its images have moved")


@pytest.mark.parametrize(
    "option",
    [
        *("--recipe paper", "--variant tanh", "--set flip=false", "--batch-size 8"),
        *("--learning-rate 1", "--precision auto", "--weights x", "--no-check", "--seed 0"),
        "--out x",
    ],
)
def test_what_a_run_is_made_of_does_not_change_when_it_is_resumed(option, alexnet):
    """Oracle: exit code 2 and the option by its name, before the run is looked for."""
    found = alexnet("train", "--resume", "no-run", *option.split())
    assert_one_line(found, 2, f"leave out {option.split()[0]}")


# Paths that can't be used


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (
            "train x --out rose.jpg/runs",
            2,
            "--out rose.jpg/runs: rose.jpg is a file; name a folder",
        ),
        (
            "split x --out rose.jpg/data",
            2,
            "--out rose.jpg/data: rose.jpg is a file; name a folder",
        ),
        ("figures runs/latest --out rose.jpg/a/b", 2, "--out rose.jpg/a/b: rose.jpg is a file"),
        ("evaluate", 2, "/confusion-val.png: is a folder; name a file"),
        ("export --out runs/latest/" + "a" * 300, 2, "no file can have this name"),
        ("evaluate --model " + "a" * 300, 2, "no file can have this name"),
        ("split " + "a" * 300, 2, "no file can have this name"),
        ("predict rose.jpg/x.jpg", 1, "rose.jpg/x.jpg: Not a directory"),
    ],
)
def test_a_path_that_can_not_be_used_is_one_line(
    run_copy, tmp_path, monkeypatch, alexnet, command, code, message
):
    """Oracle: the file, the system's reason and what to do; no new file."""
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "x", 2)
    (tmp_path / "rose.jpg").write_bytes((tmp_path / "x" / "red" / "0.png").read_bytes())
    (run_copy / "confusion-val.png").mkdir()
    before = sorted(map(str, tmp_path.rglob("*")))
    assert_one_line(alexnet(*command.split()), code, message)
    assert sorted(map(str, tmp_path.rglob("*"))) == before


# The newest run


@pytest.mark.parametrize(
    ("command", "better"),
    [
        ("evaluate", "evaluate --model runs/other"),
        ("predict x.png", "predict x.png --model runs/other"),
        ("export", "export runs/other"),
        ("figures", "figures runs/other"),
        ("train --resume runs/latest", "train --resume runs/other"),
        ("evaluate --model=runs/latest --json", "evaluate --model=runs/other --json"),
    ],
)
def test_without_the_newest_run_the_next_one_is_named(
    run_copy, tmp_path, monkeypatch, alexnet, command, better
):
    """Oracle: the run that was deleted, the one that is left, and the command that uses it."""
    monkeypatch.chdir(tmp_path)
    run_copy.rename(tmp_path / "runs" / "other")
    gone = f"runs/latest: leads to the run {run_copy.name}, which is gone. The newest run is runs/other"
    assert_one_line(alexnet(*command.split()), 1, f"{gone}. Type: alexnet {better}\n")


# Folders around the class folders


@pytest.mark.parametrize("command", ["split flowers --out data", "train flowers"])
def test_a_folder_around_the_class_folders_is_named_with_the_command(
    tmp_path, monkeypatch, alexnet, command
):
    """Oracle: the command with the inner folder; nothing was made."""
    monkeypatch.chdir(tmp_path)
    inner = paint(tmp_path / "flowers" / "flower_photos", 2)
    (inner / "LICENSE.txt").write_text("free")
    better = command.replace("flowers", "flowers/flower_photos", 1)
    found = alexnet(*command.split())
    assert_one_line(found, 1, "contains only one class, 'flower_photos'. If blue, green, red are")
    assert found[2].endswith(f". Type: alexnet {better}\n")
    assert os.listdir(tmp_path) == ["flowers"]


def test_a_folder_around_a_split_is_named_with_the_command(tmp_path, monkeypatch, alexnet):
    """Oracle: the default, in which another split was unpacked; the command with that folder."""
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        paint(tmp_path / "data" / "archive" / split, 2)
    (tmp_path / "data" / "__MACOSX" / "archive").mkdir(parents=True)
    found = alexnet("train", "--epochs", 3)
    assert_one_line(found, 1, "If train, val are the splits, give ")
    assert found[2].endswith(". Type: alexnet train --epochs 3 data/archive\n")
    found = alexnet("split", "data", "--out", "out")
    assert_one_line(found, 1, "data/archive: is already split. Train on it")


def test_the_command_of_a_wrong_path_keeps_all_other_words(tmp_path, monkeypatch):
    """Oracle: the words as typed, quoted as the shell needs them."""
    monkeypatch.chdir(tmp_path)
    error = WrongPathError("x", tmp_path / "a b", tmp_path / "a b" / "c")
    words = ["split", "./a b", "--out=a b", "--val", "0.2", "split"]
    expected = "x. Type: alexnet split 'a b/c' '--out=a b/c' --val 0.2 split"
    assert describe_error(error, words) == expected
