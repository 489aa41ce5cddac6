"""The commands as people type them: data on disk, lines on the two streams, exit codes."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import subprocess
import sys

import pytest
from conftest import COLORS, paint
from helpers import QUICK
from PIL import Image

from alexnet_cli.cli.app import main
from alexnet_cli.recipes import presets, variants


@pytest.fixture
def alexnet(capfd, monkeypatch):
    """Run a command line in this process; returns exit code, stdout and stderr."""
    monkeypatch.setitem(presets.RECIPES, "quick", QUICK)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["alexnet", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capfd.readouterr()
        return stop.value.code or 0, out, err

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with class folders and a photograph, for commands without arguments."""
    folder = tmp_path_factory.mktemp("work")
    paint(folder / "colors", per_class=10)
    (folder / "colors" / "LICENSE.txt").write_text("free")
    Image.new("RGB", (50, 40), COLORS["red"]).save(folder / "rose.jpg")
    return folder


@pytest.fixture
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


def test_help_does_not_import_tensorflow():
    """Oracle: sys.modules of a real process; the positive control is a command that needs it."""
    code = "import sys; sys.argv = {argv}; from alexnet_cli.cli.app import main\n"
    code += "try: main()\nexcept SystemExit: pass\nprint('tensorflow' in sys.modules)"
    for argv, expected in (
        (["alexnet", "--help"], "False"),
        (["alexnet", "train", "--help"], "False"),
        (["alexnet", "--version"], "False"),
        (["alexnet", "train", "none"], "True"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code.format(argv=argv)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == expected, argv


def test_without_a_command_help_is_shown_once(alexnet):
    """Oracle: what --help shows; nothing on standard error."""
    expected = alexnet("--help")
    assert expected[1].startswith("Usage: ")
    assert alexnet() == expected


def test_the_four_commands(inside, alexnet):
    """Oracle: counts by hand, and colors that can't be confused."""
    code, out, err = alexnet("split", "colors")
    assert (code, err) == (0, "")
    assert "1 file that is not an image ignored" in out
    for name in COLORS:
        assert len(os.listdir(inside / "data" / "train" / name)) == 9
        assert len(os.listdir(inside / "data" / "val" / name)) == 1

    code, out, err = alexnet("train", "--recipe", "quick", "--gpus", 0, "--epochs", 5)
    assert (code, err) == (0, "")
    assert "27 train, 3 val" in out
    assert "next: alexnet evaluate, or alexnet predict IMAGE" in out
    rows = [line.split() for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5"]

    code, out, err = alexnet("evaluate", "--ten-crop", "--json", "report.json")
    assert (code, err) == (0, "")
    report = json.loads((inside / "report.json").read_text())
    assert sum(map(sum, report["matrix"])) == report["one_crop"]["n"] == 3
    assert report["ten_crop"]["top1"] == sum(report["matrix"][i][i] for i in range(3)) / 3
    assert "F1" in out
    assert f"with ten crops, as all below: top-1 {report['ten_crop']['top1']:.4f}" in out
    picture = inside / "runs" / "latest" / "confusion.png"
    before = picture.read_bytes()
    code, out, err = alexnet("evaluate", "--split", "train")
    assert (code, err) == (0, "")
    assert (picture.parent / "confusion-train.png").exists()
    code, out, err = alexnet("evaluate", "colors")
    assert picture.read_bytes() == before  # those of other images have names of their own
    assert (picture.parent / "confusion-colors.png").exists()
    paint(inside / ("x" * 250), per_class=1)  # as long a name as a file system takes, nearly
    code, out, err = alexnet("evaluate", "x" * 250)
    assert (code, err) == (0, "")

    code, out, err = alexnet("figures")
    assert (code, err) == (0, "")
    assert [line.rpartition("/")[2] for line in out.splitlines()] == [
        "kernels.png",
        "predictions.png",
        "neighbors.png",
    ]
    code, out, err = alexnet("predict", "rose.jpg", "--neighbors", 2, "--json")
    assert (code, err) == (0, "")
    assert [near["label"] for near in json.loads(out)[0]["neighbors"]] == ["red", "red"]
    assert (inside / "runs" / "latest" / "neighbors.png").exists()

    replace_file = os.replace

    def refuse(source, target):
        if str(target).endswith("neighbors.png"):
            raise OSError(errno.EROFS, "Read-only file system", str(target))
        replace_file(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        code, out, err = alexnet("predict", "rose.jpg", "--neighbors", 2)
    assert code == 0
    assert err.endswith("Read-only file system; the neighbors are not drawn\n")

    code, out, err = alexnet("predict", "rose.jpg")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "rose.jpg"
    assert out.splitlines()[1].split()[0] == "red"


@pytest.mark.parametrize("how", [[], ["--prepare"]])
def test_equal_files_are_named_below_the_split(tmp_path, alexnet, how):
    """Oracle: the names that the files were given, of which shards have none on the disk."""
    (paint(tmp_path / "colors", per_class=4) / "red" / "copy.png").write_bytes(
        (tmp_path / "colors" / "red" / "0.png").read_bytes()
    )
    code, out, err = alexnet("split", tmp_path / "colors", "--out", tmp_path / "data", *how)
    assert (code, err) == (0, "")
    named = re.search(r"kept together: (\w+)/red/0.png, (\w+)/red/copy.png", out.replace("\n", " "))
    assert named
    assert named[1] == named[2]


def test_predictions_for_programs(inside, alexnet):
    """Oracle: probabilities that sum to 1; the same figures from --json and --csv."""
    (inside / "bad.jpg").write_text("no image")
    names = ["bad.jpg", "rose.jpg", "colors/blue/1.png", "none.jpg", "colors/blue/2.png"]
    code, out, err = alexnet("predict", *names, "--json")
    assert [one["image"] for one in json.loads(out)] == names  # in the order they were named
    code, out, err = alexnet("predict", "rose.jpg", "bad.jpg", "none.jpg", "--json", "--top", 3)
    assert code == 1
    assert err.splitlines() == [
        "alexnet: bad.jpg: is not an image",
        "alexnet: none.jpg: No such file or directory",
    ]
    good, bad, missing = json.loads(out)
    assert sum(row["probability"] for row in good["predictions"]) == pytest.approx(1, abs=1e-6)
    assert (bad["error"], missing["image"]) == ("is not an image", "none.jpg")
    code, out, err = alexnet("predict", "rose.jpg", "colors/blue", "--csv", "--top", 3)
    assert (code, err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 3 * 11
    for row, expected in zip(rows, good["predictions"]):
        assert row["class"] == expected["class"]
        assert float(row["probability"]) == pytest.approx(expected["probability"], abs=1e-6)


def test_what_no_class_is_likely_enough_for_is_none_of_these(inside, alexnet):
    """Oracle: the probabilities that `predict` gives alone, and bounds on both sides of the lowest.

    What `evaluate` says of the cost is a count of the validation images, here by their probabilities.
    """
    _, out, _ = alexnet("predict", "data/val", "--json", "--top", 1)
    least, second, _ = sorted(json.loads(out), key=lambda one: one["predictions"][0]["probability"])
    image, (best,) = least["image"], least["predictions"]
    above = (best["probability"] + second["predictions"][0]["probability"]) / 2
    for bound, refused in ((best["probability"] * 0.99, False), (above, True)):
        code, out, _ = alexnet("predict", image, "--none-below", bound)
        assert (code, "none of these" in out) == (0, refused)
        _, out, _ = alexnet("predict", image, "--none-below", bound, "--json", "--top", 1)
        assert json.loads(out)[0].get("none_of_these", False) == refused
        assert json.loads(out)[0]["predictions"][0]["class"] == best["class"]
        _, out, _ = alexnet("predict", image, "--none-below", bound, "--csv")
        rows = list(csv.DictReader(io.StringIO(out)))
        assert rows[0]["class"] == ("" if refused else best["class"])
        assert len(rows) == (1 if refused else 3)
    code, out, err = alexnet("evaluate", "--none-below", above)
    assert (code, err) == (0, "")
    assert f"none of these below {above:g}: 1 of 3 refused" in " ".join(out.split())


def test_an_unsplit_folder_trains_without_a_copy(inside, alexnet, tmp_path):
    """Oracle: the run's manifest names each photograph where it lies, once."""
    out = tmp_path / "elsewhere"
    options = ("--recipe", "quick", "--gpus", 0, "--epochs", 1, "--out", out)
    code, said, err = alexnet("train", "colors", *options)
    assert (code, err) == (0, "")
    assert f"--model {out}" in said.splitlines()[-1]
    lines = (out / "latest" / "manifest.jsonl").read_text().splitlines()[1:]
    named = sorted(json.loads(line)["path"] for line in lines)
    assert named == sorted(f"{name}/{n}.png" for name in COLORS for n in range(10))
    code, said, err = alexnet("evaluate", "--model", out / "latest", "--split", "train")
    assert (code, err) == (0, "")
    assert "on train of" in said


def test_a_run_teaches_another_and_both_predict(inside, alexnet, tmp_path):
    """Oracle: layers named on the screen; the constants that the report says were changed."""
    out = tmp_path / "runs"
    options = ("--gpus", 0, "--epochs", 1, "--out", out)
    assert alexnet("train", "colors", "--recipe", "quick", *options)[0] == 0
    first = (out / "latest").resolve()
    options = (*options, "--weights", first, "--set", "conv2.bias=0.5", "--variant", "no-dropout")
    code, said, err = alexnet("train", "colors", *options)
    assert (code, err) == (0, "")
    assert f"conv1, conv2, conv3, conv4, conv5, fc6, fc7 from {first}; fc8 new" in said
    second = (out / "latest").resolve()
    code, said, err = alexnet("recipes", second)
    assert (code, err) == (0, "")
    assert "here 0.5. set on the command line" in said
    assert "here 0. variant no-dropout: no dropout (§4.2)" in said
    assert alexnet("train", "--resume", second, "--epochs", 2, "--gpus", 0)[0] == 0
    code, said, err = alexnet("recipes", second)  # as report.md has it
    assert "here 2." in said
    assert "**2**" in (second / "report.md").read_text()
    code, said, err = alexnet("evaluate", "--model", first, "--model", second, "--split", "train")
    assert (code, err) == (0, "")
    assert [line.split()[1:4] for line in said.splitlines() if "one crop" in line] == [
        ["model", "1,", "one"],
        ["model", "2,", "one"],
        ["averaged,", "one", "crop"],
    ]
    assert alexnet("predict", "rose.jpg", "--model", first, "--model", second)[0] == 0


def test_recipes_are_listed_and_explained(alexnet):
    """Oracle: every name; Caffe's k beside the paper's."""
    code, said, err = alexnet("recipes")
    assert (code, err) == (0, "")
    first_words = {line.split()[0] for line in said.splitlines() if line}
    assert {*presets.RECIPES, *variants.VARIANTS} - {"quick"} <= first_words
    code, said, err = alexnet("recipes", "caffe")
    assert (code, err) == (0, "")
    lines = said.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("lrn_k "))
    assert lines[at].endswith("LRN k: 2 (§3.3)")
    assert lines[at + 1].strip().startswith("here 1. Caffe")


def _no_classes(folder):
    (folder / "x").mkdir()
    (folder / "x" / "a.jpg").write_bytes(b"")


def _one_class(folder):
    paint(folder / "x", 2)
    for name in ("blue", "green"):
        for path in (folder / "x" / name).iterdir():
            path.unlink()
        (folder / "x" / name).rmdir()


def _empty_class(folder):
    paint(folder / "x", 2)
    (folder / "x" / "void").mkdir()


def _only_text(folder):
    for name in ("a", "b"):
        (folder / "x" / name).mkdir(parents=True)
        (folder / "x" / name / "text.jpg").write_text("words")


def _with_data(folder):
    paint(folder / "x", 2)
    (folder / "data").mkdir()
    (folder / "data" / "thesis.txt").write_text("mine")


def _photographs(folder):
    paint(folder / "x", 2)


def _broken_run(folder):
    (folder / "runs" / "r").mkdir(parents=True)
    (folder / "runs" / "r" / "config.json").write_text("{}")


@pytest.mark.parametrize(
    ("prepare", "command", "code", "message"),
    [
        (None, "split nowhere", 1, "nowhere: no such folder"),
        (_no_classes, "split x", 1, "x: holds no class folders"),
        (_one_class, "split x", 1, "x: holds one class, 'red'"),
        (_empty_class, "split x", 1, "void: holds no readable image"),
        (_only_text, "split x", 1, "a: holds no readable image"),
        (_with_data, "split x", 1, "data: is not empty"),
        (_with_data, "split x --force", 1, "data: is not empty"),
        (_photographs, "split x --val 1.5", 2, "--val 1.5: must lie above 0 and below 1"),
        (_photographs, "split x --val much", 2, "Invalid value for '--val'"),
        (_photographs, "split x --link soft", 2, "'soft' is not one of"),
        (None, "train", 1, "data: no such folder"),
        (_photographs, "train x --gpus 64", 1, "--gpus 64: TensorFlow finds 0 (none)"),
        (_photographs, "train x --gpus -1", 2, "Invalid value for '--gpus'"),
        (
            _photographs,
            "train x --recipe vgg",
            2,
            "no recipe named 'vgg': choose from paper, modern, literal",
        ),
        (
            _photographs,
            "train x --precision half",
            2,
            "--precision half: choose from auto, float32",
        ),
        (
            _photographs,
            "train x --learning-rate -1",
            2,
            "learning_rate -1.0: must be a number above 0",
        ),
        (_photographs, "train x --set conv2.bias=-1", 2, "conv2.bias -1: must be a number from 0"),
        (_photographs, "train x --seed -1", 2, "Invalid value for '--seed'"),
        (_photographs, "train x --seed 9223372036854775808", 2, "Invalid value for '--seed'"),
        (_photographs, "split x --seed -1", 2, "Invalid value for '--seed'"),
        (_photographs, "train x --out x/red/0.png", 2, "Invalid value for '--out'"),
        (_photographs, "figures --out x/red/0.png", 2, "Invalid value for '--out'"),
        (_photographs, "train x --variant no-pool", 2, "no variant named 'no-pool': choose from"),
        (None, "recipes vgg", 2, "no recipe named 'vgg': choose from paper, modern, literal"),
        (_broken_run, "recipes runs/r", 1, "runs/r: the run is incomplete"),
        (_photographs, "train x --weights runs/r", 1, "runs/r: no such run folder"),
        (_photographs, "train x --weights none.npy", 1, "none.npy: No such file"),
        (None, "predict x.jpg --model none.npy", 1, "none.npy: No such file"),
        (None, "train --resume runs/r", 1, "runs/r: no such run folder"),
        (None, "train --resume runs/r --seed 3", 2, "resumed as it began: leave out --seed"),
        (None, "train x --resume runs/r", 2, "resumed as it began: leave out DATA"),
        (_broken_run, "train --resume runs/r", 1, "runs/r: the run is incomplete, statistics.npz"),
        (None, "evaluate", 1, "no trained model in runs/"),
        (None, "evaluate --split some", 1, "no trained model in runs/"),
        (None, "predict rose.jpg", 1, "no trained model in runs/"),
        (_broken_run, "predict x.jpg --model runs/r", 1, "runs/r: the run is incomplete"),
        (None, "figures", 1, "no trained model in runs/"),
        (None, "figures runs/r", 1, "runs/r: no such run folder"),
        (_photographs, "figures x", 1, "x: is no run folder"),
        (None, "predict x.jpg --json --csv", 2, "choose one of --json and --csv"),
        (None, "evaluate --report no/x.html", 2, "no/x.html: there is no folder no"),
        (None, "evaluate --json .", 2, ".: is a folder; name a file"),
        (None, "evaluate --json /dev/null", 2, "/dev/null: is a link or a device; name a file"),
        (None, "evaluate --report /dev/stdout", 2, "/dev/stdout: is a link or a device; name"),
        (None, "export --out no/x.tflite", 2, "no/x.tflite: there is no folder no"),
        (
            None,
            "train --set conv2.stride=2",
            2,
            "conv2.stride must be 1 where conv2.towers is more",
        ),
        (None, "train --weights no.npy --set crop_size=400", 1, "no.npy: No such file"),
        (None, "fly", 2, "No such command 'fly'"),
    ],
)
def test_bad_input_gets_one_line(tmp_path, monkeypatch, alexnet, prepare, command, code, message):
    """Oracle: one line that names the value; the folder afterwards is as it was before."""
    monkeypatch.chdir(tmp_path)
    if prepare:
        prepare(tmp_path)
    before = sorted(map(str, tmp_path.rglob("*")))
    found, out, err = alexnet(*command.split())
    assert found == code
    assert err.startswith("alexnet: ")
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert sorted(map(str, tmp_path.rglob("*"))) == before


def test_names_from_outside_are_neither_markup_nor_escapes(tmp_path, monkeypatch, alexnet):
    """Oracle: the characters themselves, escaped where a terminal would obey them."""
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "x", 2)
    (tmp_path / "x" / "red").rename(tmp_path / "x" / "[bold]\x1b[31mred")
    code, out, _ = alexnet("split", "x")
    assert code == 0
    assert r"[bold]\x1b[31mred" in out
    assert "\x1b" not in out


def test_help_names_every_command_and_module_runs_alone():
    done = subprocess.run(
        [sys.executable, "-m", "alexnet_cli", "--help"], capture_output=True, text=True, check=True
    )
    for command in ("split", "train", "evaluate", "predict"):
        assert command in done.stdout


def test_tensorflow_stays_off_the_screen(inside, tmp_path):
    """Oracle: a real process, as nothing but a file descriptor catches what C++ writes."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-m", "alexnet_cli", "evaluate"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stderr == ""
    loud = {**environment, "TF_CPP_MIN_LOG_LEVEL": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=loud, check=True)
    assert "oneDNN" in done.stderr  # the positive control
