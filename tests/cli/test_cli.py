"""The commands as people type them: data on disk, lines on the two streams, exit codes."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from itertools import pairwise

import pytest
from helpers import COLORS, assert_same_run, evaluate, paint
from noise import picture
from PIL import Image

from alexnet_cli.data.manifest import read_manifest
from alexnet_cli.inference.results import SplitScore
from alexnet_cli.recipes import presets, variants
from alexnet_cli.reports.reproduce import train_commands
from alexnet_cli.runs.run_folder import RunFolder
from alexnet_cli.runs.weights_file import load_arrays, read_notes, save_arrays

SCORES = [field.name for field in fields(SplitScore)]


@pytest.fixture
def inside(tmp_path, monkeypatch):
    """A working folder with class folders and an image, for commands without arguments."""
    paint(tmp_path / "colors", per_class=10)
    (tmp_path / "colors" / "LICENSE.txt").write_text("free")
    Image.new("RGB", (50, 40), COLORS["red"]).save(tmp_path / "rose.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


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


def test_help_is_shown_without_a_command(alexnet):
    """Oracle: the output of --help; nothing on standard error."""
    expected = alexnet("--help")
    assert expected[1].startswith("Usage: ")
    assert alexnet() == expected


def test_the_four_commands(inside, alexnet):
    """Oracle: counts by hand, and colors that are easy to classify."""
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

    code, out, err = alexnet("evaluate", "--ten-crop", "--json")
    assert code == 0
    report = json.loads(out)
    assert sum(map(sum, report["matrix"])) == report["one_crop"]["n"] == 3
    assert report["ten_crop"]["top1"] == sum(report["matrix"][i][i] for i in range(3)) / 3
    picture = inside / "runs" / "latest" / "confusion-val.png"
    assert err.startswith("confusion matrix drawn in runs/")  # no table
    code, out, err = alexnet("evaluate", "--ten-crop")
    assert (code, err) == (0, "")
    assert "F1" in out
    assert f"val with ten crops: top-1 {report['ten_crop']['top1']:.4f}" in out
    assert "val chose the epoch of the weights: its scores are optimistic" in out
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
        if str(target).endswith(("neighbors.png", "confusion-val.png")):
            raise OSError(number, os.strerror(number), str(target))
        replace_file(source, target)

    for number in (errno.EROFS, errno.ENOSPC):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "replace", refuse)
            code, out, err = alexnet("predict", "rose.jpg", "--neighbors", 2)
            evaluated = alexnet("evaluate", "--json")
        assert code == 0
        assert err.startswith("alexnet: the neighbors were not drawn: runs/")
        assert f"neighbors.png: {os.strerror(number)}. " in err
        assert evaluated[0] == 0
        assert json.loads(evaluated[1])["split"] == "val"
        assert f"confusion-val.png: {os.strerror(number)}. " in evaluated[2]

    code, out, err = alexnet("predict", "rose.jpg")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "rose.jpg"
    assert out.splitlines()[1].split()[0] == "red"


def test_a_heat_map_is_drawn_and_replaces_only_heat_maps(inside, alexnet, trained):
    """Oracle: the crop's size; a file of the user's with the same name, byte for byte."""
    command = ("predict", "rose.jpg", "--heatmap", "--model", trained)
    for _ in range(2):  # the second replaces the first
        code, out, err = alexnet(*command)
        assert (code, err) == (0, "")
        assert out.splitlines()[-1] == "drawn in rose-heatmap.png"
        with Image.open("rose-heatmap.png") as picture:
            assert (picture.size, picture.mode) == ((64, 64), "RGB")
    (inside / "rose-heatmap.png").write_text("mine")
    (inside / "more").mkdir()
    Image.new("RGB", (50, 40)).save(inside / "more" / "rose.png")
    code, out, err = alexnet(*command, "more", "--json")
    assert (code, err) == (0, "")
    assert len(json.loads(out)) == 2
    assert (inside / "rose-heatmap.png").read_text() == "mine"
    assert sorted(path.name for path in inside.glob("rose-heatmap*")) == [
        "rose-heatmap-2.png",
        "rose-heatmap-3.png",
        "rose-heatmap.png",
    ]
    code, out, err = alexnet(*command, "--model", trained)
    assert (code, out, err) == (2, "", "alexnet: --heatmap: works with a single model only\n")


def test_validation_and_test_are_shown_side_by_side(inside, alexnet, tmp_path):
    """Oracle: separate evaluations of each split; counts by hand, each image classified once."""
    assert alexnet("split", "colors", "--out", tmp_path / "data", "--test", 0.2)[0] == 0
    options = ("--recipe", "quick", "--gpus", 0, "--epochs", 2, "--out", tmp_path)
    assert alexnet("train", tmp_path / "data", *options)[0] == 0
    model = ("--model", tmp_path / "latest")
    alone = {
        split: json.loads(alexnet("evaluate", *model, "--split", split, "--json")[1])
        for split in ("val", "test")
    }
    assert [one["validation"] for one in alone.values()] == [None, None]
    code, out, err = alexnet("evaluate", *model, "--json")
    both = json.loads(out)
    assert both.pop("validation") == {key: alone["val"][key] for key in SCORES}
    assert both == {key: value for key, value in alone["test"].items() if key != "validation"}
    calls = []
    evaluate([tmp_path / "latest"], progress=lambda *done: calls.append(done))
    assert calls == [(n, 3 + 6) for n in range(1, 10)]

    code, out, err = alexnet("evaluate", *model)
    assert (code, err) == (0, "")
    rows = [re.findall(r"[\w.]+", line) for line in out.splitlines() if "one crop" in line]
    for row, (split, one) in zip(rows, alone.items(), strict=True):
        score = one["one_crop"]
        assert row[:3] == [split, "one", "crop"]
        shares = [f"{score[name]:.4f}" for name in ("loss", "top1", "calibration_error")]
        assert row[3:] == [str(score["n"]), *shares]
    assert "val chose the epoch of the weights: its scores are optimistic" in out
    assert "everything below is for test" in out
    page = tmp_path / "page.html"
    assert alexnet("evaluate", *model, "--report", page)[0] == 0
    assert "--split test" in page.read_text()


@pytest.mark.parametrize("how", [[], ["--prepare"]])
def test_duplicates_are_listed_after_a_split(tmp_path, alexnet, how):
    """Oracle: the names of the files, also for images in shards."""
    (paint(tmp_path / "colors", per_class=4) / "red" / "copy.png").write_bytes(
        (tmp_path / "colors" / "red" / "0.png").read_bytes()
    )
    code, out, err = alexnet("split", tmp_path / "colors", "--out", tmp_path / "data", *how)
    assert (code, err) == (0, "")
    named = re.search(
        r"kept in one split: (\w+)/red/0.png, (\w+)/red/copy.png", out.replace("\n", " ")
    )
    assert named
    assert named[1] == named[2]
    assert "near copies" not in out


def test_near_copies_are_listed_after_a_split(tmp_path, alexnet):
    """Oracle: the names of the files; a picture saved again as JPEG under another class."""
    source = paint(tmp_path / "colors", per_class=4)
    picture(0).save(source / "red" / "0.png")
    picture(0).save(source / "blue" / "again.jpg")
    code, out, err = alexnet("split", source, "--out", tmp_path / "data")
    assert (code, err) == (0, "")
    named = re.search(
        r"near copies, under different classes, kept in one split: (\w+)/blue/again.jpg, "
        r"(\w+)/red/0.png\n",
        out,
    )
    assert named
    assert named[1] == named[2]


def test_groups_stay_together_and_the_table_says_how_near(tmp_path, alexnet):
    """Oracle: counts by hand: 8 of 10 in groups of 4, so that val can't have 3 of each class."""
    source = paint(tmp_path / "colors", per_class=10)
    for path in source.glob("*/[0-7].png"):
        path.rename(path.with_name(f"plant{int(path.stem) // 4}{path.parent.name}_{path.name}"))
    split = ("split", source, "--out", tmp_path / "data", "--val", 0.3)
    code, out, err = alexnet(*split, "--group", r"(plant\d[a-z]+)_")
    assert (code, err) == (0, "")
    assert "6 groups kept together; 6 images are in no group" in out
    assert (
        "as near to the fractions as groups allow: train 80.0% for 70.0%, val 20.0% for 30.0%; "
        "farthest: train of blue has 8 images for 7\n"
    ) in out
    code, out, err = alexnet(*split, "--group", "(", "--force")
    assert (code, out) == (2, "")
    assert err.startswith("alexnet: --group (: is no regular expression")


def test_predictions_as_json_and_csv(inside, run_copy, alexnet):
    """Oracle: probabilities that sum to 1; the same values from --json and --csv."""
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


def soften(run):
    """Divide the logits of a run, so that its probabilities are well below 1 and differ."""
    arrays = load_arrays(run / "best.safetensors")
    notes = read_notes(run / "best.safetensors")
    for name in ("fc8/kernel", "fc8/bias"):
        arrays[name] = arrays[name] / 8
    save_arrays(run / "best.safetensors", arrays, notes)


def test_an_image_below_the_threshold_is_none_of_these(inside, run_copy, alexnet):
    """Oracle: the probabilities without a threshold, and thresholds on both sides of one of them.

    The count by `evaluate` is that of the probabilities below a threshold in the middle of the widest
    gap, so that rounding does not matter.
    """
    soften(run_copy)
    _, out, _ = alexnet("predict", "colors", "--json", "--top", 1)
    ranked = sorted(
        (p["probability"], one["image"]) for one in json.loads(out) for p in one["predictions"]
    )
    chances = [chance for chance, _ in ranked]
    gap, n_below = max((b - a, n) for n, (a, b) in enumerate(pairwise(chances), start=1))
    assert gap > 0.01
    chance, image = ranked[n_below - 1]
    for threshold, below in ((chance * 0.999, False), (chance * 1.001, True)):
        code, out, _ = alexnet("predict", image, "--threshold", threshold)
        assert (code, "none of these" in out) == (0, below)
        _, out, _ = alexnet("predict", image, "--threshold", threshold, "--json", "--top", 1)
        assert json.loads(out)[0].get("none_of_these", False) == below
        best = json.loads(out)[0]["predictions"][0]["class"]
        _, out, _ = alexnet("predict", image, "--threshold", threshold, "--csv")
        rows = list(csv.DictReader(io.StringIO(out)))
        assert rows[0]["class"] == ("" if below else best)
        assert len(rows) == (1 if below else 3)
    above = chance + gap / 2
    code, out, err = alexnet("evaluate", "colors", "--threshold", above)
    assert (code, err) == (0, "")
    assert f'"none of these" below {above:g}: {n_below} of 30 images' in " ".join(out.split())


def test_an_unsplit_folder_trains_without_a_copy(inside, alexnet, tmp_path):
    """Oracle: the manifest of the run lists each image at its original path, once."""
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


def test_a_list_is_used_like_the_folder_of_its_images(
    image_folder, trained, alexnet, tmp_path, monkeypatch
):
    """Oracle: the shared run on the folder, bit for bit; commands by hand; counts of the rows."""
    monkeypatch.chdir(tmp_path)
    rows = [f"{path},{path.parent.name}" for path in image_folder.glob("*/*.png")]
    (tmp_path / "images.csv").write_text("\n".join(["file,label", *sorted(rows)[::-1]]))
    train = ["train", "--recipe", "quick", "--gpus", 0, "--precision", "float32"]
    code, _, err = alexnet(*train, "images.csv")
    assert (code, err) == (0, "")
    assert_same_run(tmp_path / "runs" / "latest", trained)
    moved = shutil.copytree(image_folder, tmp_path / "moved")
    resume = ["train", "--resume", "runs/latest", "--epochs", 5, "--moved-data", moved]
    assert alexnet(*resume, "--gpus", 0)[0] == 0
    own = json.loads(alexnet("evaluate", "images.csv", "--json")[1])
    assert (own["split"], own["chose_epoch"]) == ("val", True)
    assert own["data"] == str(tmp_path / "images.csv")
    run = RunFolder(tmp_path / "runs" / "latest")
    assert len(run.manifest.files) == len(rows)
    config = replace(run.config, recipe=presets.PAPER)
    assert [*train_commands(config, run.manifest, 90)] == [
        "alexnet train images.csv --recipe paper --seed 0 --precision float32"
    ]
    code, out, err = alexnet("split", "images.csv", "--seed", 4)
    assert (code, err) == (0, "")
    assert "written to data/; next: alexnet train" in out
    written = read_manifest(tmp_path / "data" / "manifest.jsonl")
    assert next(train_commands(config, written, 90)) == (
        "alexnet split images.csv --val 0.1 --test 0.0 --seed 4 --out data"
    )
    rows = [f"{row},{('train', 'val')[n % 4 == 0]}" for n, row in enumerate(sorted(rows))]
    (tmp_path / "divided.csv").write_text("\n".join(["file,label,set", *rows]))
    for data, options, n, split in (
        ("divided.csv", [], 9, "val"),
        ("divided.csv", ["--split", "train"], 27, "train"),
    ):
        other = json.loads(alexnet("evaluate", data, *options, "--json")[1])
        assert (other["one_crop"]["n"], other["split"], other["chose_epoch"]) == (n, split, False)


def test_a_run_starts_from_another_and_both_predict(inside, alexnet, tmp_path):
    """Oracle: the layers on the screen; the changed hyperparameters in the report."""
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
    assert "here 0.5. set by the user" in said
    assert "here yes. variant finetune: to start from other weights" in said
    assert "here 0. variant no-dropout: without dropout (§4.2)" in said
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
    """Oracle: every name; k of Caffe and of the paper."""
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


def _image_folder(folder):
    paint(folder / "x", 2)


def _broken_run(folder):
    (folder / "runs" / "r").mkdir(parents=True)
    (folder / "runs" / "r" / "config.json").write_text("{}")


@pytest.mark.parametrize(
    ("prepare", "command", "code", "message"),
    [
        (None, "split nowhere", 1, "nowhere: not found"),
        (_no_classes, "split x", 1, "x: contains no class folders"),
        (_one_class, "split x", 1, "x: contains only one class, 'red'"),
        (_empty_class, "split x", 1, "void: contains no readable image"),
        (_only_text, "split x", 1, "a: contains no readable image"),
        (_with_data, "split x", 1, "data: is not empty"),
        (_with_data, "split x --force", 1, "data: is not empty"),
        (_image_folder, "split x --val 1.5", 2, "--val 1.5: must be above 0 and below 1"),
        (_image_folder, "split x --val much", 2, "--val much: must be a number"),
        (_image_folder, "split x --link soft", 2, "--link soft: choose from copy, hard, symbolic"),
        (None, "train", 1, "data: not found"),
        (_image_folder, "train x --gpus 64", 1, "--gpus 64: TensorFlow finds no GPU"),
        (_image_folder, "train x --gpus -1", 2, "--gpus -1: must be 0 or more"),
        (
            _image_folder,
            "train x --recipe vgg",
            2,
            "no recipe named 'vgg': choose from paper, modern, best, literal",
        ),
        (
            _image_folder,
            "train x --precision half",
            2,
            "--precision half: choose from auto, float32",
        ),
        (
            _image_folder,
            "train x --learning-rate -1",
            2,
            "--learning-rate -1.0: must be more than 0",
        ),
        (_image_folder, "train x --set conv2.bias=-1", 2, "--set conv2.bias=-1: must be 0 or more"),
        (_image_folder, "train x --set lrn_n=4", 2, "--set lrn_n=4: lrn_n must be odd"),
        (_image_folder, "train x --seed -1", 2, "--seed -1: must be 0 or more"),
        (
            _image_folder,
            "train x --seed 9223372036854775808",
            2,
            "--seed 9223372036854775808: must be 9,",
        ),
        (_image_folder, "split x --seed -1", 2, "--seed -1: must be 0 or more"),
        (_image_folder, "train x --out x/red/0.png", 2, "--out x/red/0.png: is a file; name"),
        (_image_folder, "figures --out x/red/0.png", 2, "--out x/red/0.png: is a file; name"),
        (_image_folder, "train x --variant no-pool", 2, "no variant named 'no-pool': choose from"),
        (None, "recipes vgg", 2, "no recipe named 'vgg': choose from paper, modern, best, literal"),
        (_broken_run, "recipes runs/r", 1, "runs/r: incomplete run"),
        (_image_folder, "train x --weights runs/r", 1, "runs/r: no such run folder"),
        (_image_folder, "train x --weights none.npy", 1, "none.npy: No such file"),
        (None, "predict x.jpg --model none.npy", 1, "none.npy: No such file"),
        (None, "train --resume runs/r", 1, "runs/r: no such run folder"),
        (
            None,
            "train --resume runs/r --seed 3",
            2,
            "--resume runs/r: a run is resumed as it began; leave out --seed",
        ),
        (None, "train x --resume runs/r", 2, "resumed as it began; leave out DATA"),
        (_broken_run, "train --resume runs/r", 1, "runs/r: incomplete run, statistics.safetensors"),
        (None, "evaluate", 1, "runs/: holds no trained model"),
        (None, "evaluate --split some", 1, "runs/: holds no trained model"),
        (None, "predict rose.jpg", 1, "runs/: holds no trained model"),
        (_broken_run, "predict x.jpg --model runs/r", 1, "runs/r: incomplete run"),
        (None, "figures", 1, "runs/: holds no trained model"),
        (None, "figures runs/r", 1, "runs/r: no such run folder"),
        (_image_folder, "figures x", 1, "x: not a run folder"),
        (None, "predict x.jpg --json --csv", 2, "choose one of --json and --csv"),
        (None, "evaluate --report no/x.html", 2, "--report no/x.html: folder no not found"),
        (None, "evaluate --report .", 2, "--report .: is a folder; name a file"),
        (None, "evaluate --json x.json", 2, "use: alexnet evaluate --json > x.json"),
        (
            None,
            "evaluate --report /dev/stdout",
            2,
            "--report /dev/stdout: is a link or a device; name",
        ),
        (None, "export", 1, "runs/: holds no trained model"),
        (
            None,
            "train --set conv2.stride=2",
            2,
            "conv2.stride must be 1 where conv2.towers is more",
        ),
        (None, "train --weights no.npy --set crop_size=400", 1, "no.npy: No such file"),
        (None, "train --hosts a:1,b:2", 2, "--rank: is missing: the index of this machine"),
        (None, "train --hosts a:1,b --rank 0", 2, "--hosts a:1,b: 'b' is not host:port"),
        (None, "train --hosts a..b:1,c:1 --rank 0", 2, "'a..b:1' is not host:port"),
        (None, "train --recipe modrn", 2, "no recipe named 'modrn': did you mean modern? Choose"),
        (None, "train --variant no-tanh", 2, "no variant named 'no-tanh': did you mean"),
        (None, "train --epochs 1e3", 2, "--epochs 1e3: must be a whole number"),
        (
            None,
            "train --set =3",
            2,
            "--set =3: the name is missing. Write NAME=VALUE, as in epochs",
        ),
        (None, "predict x.jpg --top 0", 2, "--top 0: must be 1 or more"),
        (None, "predict x.jpg --threshold 2", 2, "--threshold 2: must be 1 or less"),
        (None, "evaluate --threshold nan", 2, "--threshold nan: must be 1 or less"),
        (
            None,
            "export --format tflite",
            2,
            "--format tflite: choose from savedmodel, onnx, litert",
        ),
        (None, "fly", 2, "No such command 'fly'"),
    ],
)
def test_bad_input_gets_one_line(tmp_path, monkeypatch, alexnet, prepare, command, code, message):
    """Oracle: one line with the value; an unchanged folder."""
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


def test_names_are_neither_markup_nor_escape_sequences(tmp_path, monkeypatch, alexnet):
    """Oracle: the characters of the name, with control characters escaped."""
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "x", 2)
    (tmp_path / "x" / "red").rename(tmp_path / "x" / "[bold]\x1b[31mred")
    code, out, _ = alexnet("split", "x")
    assert code == 0
    assert r"[bold]\x1b[31mred" in out
    assert "\x1b" not in out


def test_help_lists_every_command_and_the_module_can_be_run():
    done = subprocess.run(
        [sys.executable, "-m", "alexnet_cli", "--help"], capture_output=True, text=True, check=True
    )
    for command in ("split", "train", "evaluate", "predict"):
        assert command in done.stdout


def test_messages_of_tensorflow_are_not_shown(inside, run_copy):
    """Oracle: the standard error of a real process, to which C++ code writes."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-m", "alexnet_cli", "evaluate"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stderr == ""
    loud = {**environment, "TF_CPP_MIN_LOG_LEVEL": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=loud, check=True)
    assert ".cc:" in done.stderr  # the positive control: lines of TensorFlow's source
