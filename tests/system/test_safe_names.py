"""Hostile class and file names in terminal output, spreadsheets, pictures and reports."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import TINY
from PIL import Image

from alexnet_cli.cli import app
from alexnet_cli.recipes import presets
from alexnet_cli.runs.records import Finding, report_markdown
from alexnet_cli.system import safe_names

# name → as a terminal shows it; None: unchanged
NAMES = {
    "[bold]": None,
    "[link=x]y[": None,
    "\x1b[31mred": r"\x1b[31mred",
    "=cmd()": None,
    "@sum": None,
    "a\nb": r"a\nb",
    "$x_": None,
    r"$\frac$": None,
    'a,b"c': None,
    "\udcff": r"\udcff",  # a byte that is no UTF-8
    "abc\u202egpj": r"abc\u202egpj",
    "日本": None,
}


@pytest.fixture
def place(tmp_path):
    """A folder of images whose class folders and files have these names."""
    random = np.random.default_rng(0)
    for label in NAMES:
        folder = tmp_path / "source" / label
        folder.mkdir(parents=True)
        for number in range(4):
            pixels = random.integers(0, 256, (80, 80, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{label} {number}.png")
    return tmp_path


@pytest.fixture
def alexnet(place, monkeypatch, capfd):
    """The command line in `place`; returns exit code, output and errors."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setitem(presets.RECIPES, "tiny", replace(TINY, epochs=1))

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["alexnet", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            app.main()
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return left.value.code or 0, out, err

    return call


def assert_harmless(text):
    """Assert that `text` holds printable characters and line ends only."""
    assert {c for c in text if not c.isprintable()} <= {"\n"}


def test_hostile_names_from_split_to_figures(place, alexnet):
    """Oracle: each name in the output as in the table above, and no control characters."""
    shown = [safe or name for name, safe in NAMES.items()]
    for command in (
        ("split", "source", "--val", 0.25),
        ("train", "--recipe", "tiny"),
        ("evaluate",),
        ("predict", "source", "--top", 12, "--neighbors", 1),
        ("figures",),
    ):
        code, out, err = alexnet(*command)
        assert (code, err) == (0, ""), command
        assert_harmless(out)
        if command[0] in ("split", "evaluate", "predict"):
            assert all(name in out for name in shown), command
    run = Path("runs/latest")
    for picture in ("confusion-val.png", "neighbors.png", "figures/predictions.png"):
        Image.open(run / picture).verify()
    assert alexnet("recipes", run.resolve())[0] == 0
    _, out, _ = alexnet("evaluate", "--json")
    assert sorted(json.loads(out)["classes"]) == sorted(NAMES)
    _, out, _ = alexnet("predict", "source", "--json")
    assert {p["class"] for image in json.loads(out) for p in image["predictions"]} <= set(NAMES)

    # CSV: one row for each image and class, no cell a formula
    code, out, _ = alexnet("predict", "source", "--csv", "--top", 12)
    rows = list(csv.reader(io.StringIO(out)))
    assert len(rows) == 1 + 48 * 12
    assert {len(row) for row in rows} == {4}
    assert {row[2] for row in rows[1:]} == {safe_names.csv_safe(name) for name in NAMES}
    assert not any(
        cell.startswith(("=", "+", "-", "@", "\t", "\r")) for row in rows for cell in row
    )

    # a file whose own name is a formula, in the folder itself
    shutil.copy(next((place / "source" / "@sum").iterdir()), "=1+1.png")
    _, out, _ = alexnet("predict", "=1+1.png", "--csv", "--top", 1)
    assert out.splitlines()[1].startswith("'=1+1.png,1,")
    os.remove("=1+1.png")


def test_hostile_texts_do_not_change_the_rows_and_cells_of_a_report():
    """Oracle: the report of the same recipe with harmless texts, line by line."""
    bad = "a|b\n\x1b[2J<script>"
    rationale = {**presets.PAPER.rationale, "bias": bad}
    recipe = replace(presets.PAPER, rationale=rationale, summary=bad)
    found = report_markdown(recipe, [Finding("flat", 1, bad, bad)])
    tame = report_markdown(presets.PAPER, [Finding("flat", 1, "x", "y")])
    assert_harmless(found)
    assert found.count("\n") == tame.count("\n")
    for line, other in zip(found.splitlines()[6:], tame.splitlines()[6:]):
        assert line.replace(r"\|", "").count("|") == other.replace(r"\|", "").count("|")
    assert "<script" not in found
