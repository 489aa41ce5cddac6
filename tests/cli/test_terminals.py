"""Wherever it runs: narrow screens, ASCII, no colors, closed streams; each is readable, none a traceback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import pytest
from helpers import HANG
from rich.console import Console

from alexnet_cli.cli import tables
from alexnet_cli.cli.screen import print_line
from alexnet_cli.data import scanning, split_folders
from alexnet_cli.data.split_plan import plan_split
from alexnet_cli.system.safe_names import csv_safe, printable


@pytest.fixture(scope="module")
def manifest(image_folder):
    return plan_split(scanning.scan(image_folder))


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_numbers_are_not_cut_on_any_screen(manifest, width):
    """Oracle: the counts of 36 images, of which 1 in 10 is for validation."""
    screen = StringIO()
    tables.show_split(Console(file=screen, width=width), manifest, Path("data"))
    assert "…" not in screen.getvalue()
    figures = [re.findall(r"\d+", line) for line in screen.getvalue().splitlines()]
    assert [row for row in figures if row] == [["11", "1", "12"]] * 3 + [["33", "3", "36"]]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_output_in_any_encoding(manifest, encoding):
    """Oracle: as above, decoded again; a strict stream raises for characters it lacks."""
    content = BytesIO()
    stream = TextIOWrapper(content, encoding=encoding)
    tables.show_split(Console(file=stream, width=80), manifest, Path("data"))
    stream.flush()
    figures = re.findall(r"\d+", content.getvalue().decode(encoding))
    assert figures == ["11", "1", "12"] * 3 + ["33", "3", "36"]


@pytest.mark.parametrize("variable", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colors_can_be_switched_off(variable):
    """Oracle: ECMA-48: a color is an escape sequence with a number from 30 to 49 or 90 to 107."""
    shown = StringIO()
    console = Console(file=shown, force_terminal=True, _environ={"TERM": "xterm", **variable})
    print_line(console, "warning", "yellow")
    codes = re.findall(r"\x1b\[([\d;]*)m", shown.getvalue())
    assert not {c for code in codes for c in code.split(";") if c and int(c) >= 30}
    assert "warning" in shown.getvalue()


CLOSED = [("stdout", ">&-", 0), ("stderr", "2>&-", 0), ("all", "<&- >&- 2>&-", 0)]


@pytest.mark.parametrize(("name", "closing", "code"), CLOSED, ids=[c[0] for c in CLOSED])
def test_closed_streams_do_no_harm(image_folder, tmp_path, name, closing, code):
    """Oracle: the exit code, no traceback, and a manifest without messages in it."""
    command = f'"$0" -m alexnet_cli split "$1" --out "$2" {closing}'
    words = ["sh", "-c", command, sys.executable, image_folder, tmp_path / "data"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=HANG, check=False)
    assert (done.returncode, done.stderr) == (code, "")
    assert len(split_folders.open_data(tmp_path / "data").files) == 36


def test_a_name_that_the_locale_lacks_gets_one_line():
    """Oracle: one line, with the name in ASCII, from a process whose file names are ASCII."""
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"}
    code = "import sys; from pathlib import Path; from alexnet_cli.system import atomic_files\n"
    code += r"atomic_files.open_file(Path('gr\xfcn/x'), 9)"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, env=ascii_only, check=False)
    assert done.stderr.splitlines()[-1].startswith("OSError: [Errno 84] can't be named in this loc")


@pytest.mark.parametrize(
    ("name", "shown", "cell"),
    [
        ("=1+1", "=1+1", "'=1+1"),
        ("+1", "+1", "'+1"),
        ("-1", "-1", "'-1"),
        ("@a", "@a", "'@a"),
        ("\t=1", r"\t=1", r"\t=1"),
        ("\r=1", r"\r=1", r"\r=1"),
        ("a=1", "a=1", "a=1"),
        ("\x9b31m", r"\x9b31m", r"\x9b31m"),
        ("a\u2066b", r"a\u2066b", r"a\u2066b"),
        ("Zürich ✓ 日本", "Zürich ✓ 日本", "Zürich ✓ 日本"),
    ],
)
def test_names_on_screens_and_in_spreadsheets(name, shown, cell):
    """Oracle: formula prefixes listed by OWASP; control and direction characters of Unicode."""
    assert (printable(name), csv_safe(name)) == (shown, cell)
