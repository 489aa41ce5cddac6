"""Run folders: whole or not there, read back bit for bit, and never unpickled."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY

from alexnet_cli.data.manifest import Manifest
from alexnet_cli.data.store import Statistics
from alexnet_cli.errors import AlexNetError
from alexnet_cli.recipes.presets import NOTEBOOK, PAPER
from alexnet_cli.runs.records import EpochRow
from alexnet_cli.runs.run_folder import RunConfig, RunFolder
from alexnet_cli.runs.weights_file import load_arrays, load_notes, save_arrays
from alexnet_cli.system.atomic_files import atomic_write

ARRAYS = {
    "weights": np.array([[0.1, -0.0, np.inf], [np.nan, 1e-45, -3e38]], np.float32),
    "mean": np.array([1 / 3, math.pi]),
    "order": np.array([2**62, -5]),
    "pixels": np.arange(256, dtype=np.uint8).reshape(4, 8, 8).swapaxes(0, 2),  # not contiguous
    "scalar": np.array(7, np.int32),
    "nothing": np.empty((0, 3), np.float32),
}
EMPTY = Manifest(Path("/data"), Path("/data"), 0, 0.1, 0, ("a", "b"), (), (), 0)
NOTES = {"epoch": 3, "name": "Zürich ✓", "history": [[1, 0.1], []], "none": None}
NEEDED = ("config.json", "statistics.npz", "manifest.jsonl", "best.npz", "last.npz")


def bits(arrays):
    return {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in arrays.items()}


def config(recipe=TINY):
    versions = {"alexnet": "1", "x": "2"}
    return RunConfig(recipe, ("käse", "a b", "1"), 7, "float32", "/data/ü", versions, "runs/other")


@pytest.fixture
def run(tmp_path):
    statistics = Statistics(np.full((72, 72, 3), 0.5, np.float32), np.eye(3) / 7)
    return RunFolder.create(tmp_path / "runs", config(), statistics, EMPTY)


@pytest.fixture
def saved(tmp_path):
    """A small file with notes, before anything happens to it."""
    path = tmp_path / "arrays.npz"
    save_arrays(path, ARRAYS, NOTES)
    return path


# Whole or not there


def test_a_written_file_takes_the_place_of_the_old_one_with_ordinary_permissions(tmp_path):
    """Oracle: the new bytes, nothing beside them, and the mode that open() gives a new file."""
    path, plain = tmp_path / "file", tmp_path / "plain"
    path.write_bytes(b"old and longer than the new one")
    plain.write_bytes(b"")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes().startswith(b"old")  # not before all of it is there
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode == plain.stat().st_mode
    assert sorted(tmp_path.iterdir()) == [path, plain]


@pytest.mark.parametrize("error", [RuntimeError, OSError, KeyboardInterrupt])
@pytest.mark.parametrize("old", [b"old", None], ids=["replacing", "new"])
def test_when_the_body_raises_nothing_has_happened(tmp_path, error, old):
    """Oracle: the folder as it was before, and the body's own exception."""
    path = tmp_path / "file"
    if old:
        path.write_bytes(old)

    def write():
        with atomic_write(path) as file:
            file.write(bytes(100_000))
            raise error("mine")

    with pytest.raises(error, match="mine"):
        write()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == ({"file": old} if old else {})


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path):
    """Oracle: the old bytes, after SIGKILL (which no handler sees) came within the body."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    code = (
        "import os, pathlib, signal, sys; from alexnet_cli.system.atomic_files import atomic_write\n"
        "with atomic_write(pathlib.Path(sys.argv[1])) as file:\n"
        "    file.write(bytes(100_000)); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", code, path], cwd=root, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2  # the kill did come between beginning and end


# Arrays


def test_arrays_and_notes_come_back_bit_for_bit(saved):
    """Oracle: dtype, shape and bytes of what was saved, NaN, −0 and denormals among them."""
    loaded = load_arrays(saved)
    assert load_notes(loaded) == NOTES
    assert bits(loaded) == bits(ARRAYS)
    assert bits(load_arrays(saved, only="mean")) == bits({"mean": ARRAYS["mean"]})


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_a_damaged_byte_is_noticed_or_does_no_harm(saved, mask):
    """Law: whichever byte changes, the file is refused or the arrays are what they were."""
    whole, path = saved.read_bytes(), saved.with_name("damaged.npz")
    expected, refused = bits(load_arrays(saved)), 0
    places = range(0, len(whole), len(whole) // 40)
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= mask
        path.write_bytes(damaged)
        try:
            assert bits(load_arrays(path)) == expected, place
        except AlexNetError as error:
            assert "damaged.npz: damaged or not an array file" in str(error)  # noqa: PT017
            refused += 1
    assert refused > len(places) / 2  # most of the file is data and names


@pytest.mark.parametrize(
    ("offset", "mask"),
    [(8, 0x01), (8, 0x40), (10, 0x01), (6, 0x80)],
    ids=["encrypted", "strongly encrypted", "unknown compression", "future version"],
)
def test_a_directory_that_asks_for_what_zipfile_lacks_is_refused(saved, offset, mask):
    """Oracle: APPNOTE.TXT 4.3.12: version, flags and method stand 6, 8, 10 bytes in an entry."""
    content = bytearray(saved.read_bytes())
    content[content.index(b"PK\1\2") + offset] ^= mask
    saved.write_bytes(content)
    with pytest.raises(AlexNetError, match=r"arrays\.npz: damaged"):
        load_arrays(saved)


def test_a_directory_entry_that_swallows_the_next_ones_is_refused(saved):
    """Law: as above; the upper byte of the length of an entry's comment, 33 bytes into it."""
    content = bytearray(saved.read_bytes())
    content[content.index(b"PK\1\2") + 33] ^= 0x80
    saved.write_bytes(content)
    with pytest.raises(AlexNetError, match=r"arrays\.npz: damaged"):
        load_arrays(saved)


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(saved, keep):
    """Law: no beginning of an array file is an array file."""
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(AlexNetError, match=r"arrays\.npz: damaged"):
        load_arrays(saved)


def test_missing_file_and_missing_array_are_named(saved):
    """Oracle: the names that were asked for."""
    with pytest.raises(AlexNetError, match=r"absent\.npz.*No such file"):
        load_arrays(saved.with_name("absent.npz"))
    with pytest.raises(AlexNetError, match=r"arrays\.npz.*velocity"):
        load_arrays(saved, only="velocity")


class _Bomb:
    """Unpickling this makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("form", ["npz", "npy", "pickle"])
def test_nothing_is_unpickled(tmp_path, form):
    """Oracle: the marker that unpickling would leave; that the bomb works is tried at the end."""
    path, marker = tmp_path / "weights.npz", tmp_path / "marker"
    bomb = np.array([_Bomb(marker)], dtype=object)
    with path.open("wb") as file:
        if form == "npz":
            np.savez(file, allow_pickle=True, weights=bomb)
        elif form == "npy":
            np.save(file, bomb, allow_pickle=True)
        else:
            pickle.dump(bomb, file)
    with pytest.raises(AlexNetError, match=r"weights\.npz: damaged"):
        load_arrays(path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(bomb))
    assert marker.exists()


def test_a_member_that_is_no_array_is_refused(tmp_path):
    """Law: what load_arrays returns are arrays."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("weights.npy", b"neither an array nor a pickle")
    with pytest.raises(AlexNetError, match=r"a\.npz"):
        load_arrays(tmp_path / "a.npz")


def test_object_arrays_are_not_saved_either(tmp_path):
    """Oracle: NumPy's refusal to pickle, and an empty folder."""
    with pytest.raises(ValueError, match="allow_pickle"):
        save_arrays(tmp_path / "a.npz", {"a": np.array([None])})
    assert list(tmp_path.iterdir()) == []


# The run folder


def test_runs_of_one_second_get_a_folder_each(tmp_path, run):
    """Oracle: counting; of four runs within some milliseconds, two or more share a second."""
    statistics = run.statistics(TINY)
    others = [RunFolder.create(run.path.parent, config(), statistics, EMPTY) for _ in range(3)]
    assert len({run.path, *(other.path for other in others)}) == 4
    assert {p.name for p in run.path.parent.iterdir()} == {r.path.name for r in [run, *others]}
    assert all(r.path.name.split("-tiny")[1] in ("", "-2", "-3", "-4") for r in others)


def test_latest_leads_to_the_newest_and_moves_along(run, tmp_path):
    """Oracle: the link's text is the bare name, so it holds after the folder moved."""
    other = RunFolder.create(run.path.parent, config(), run.statistics(TINY), EMPTY)
    for newest in (run, other):
        newest.become_latest()
        assert os.readlink(run.path.parent / "latest") == newest.path.name
    moved = shutil.move(run.path.parent, tmp_path / "elsewhere")
    for name in NEEDED:
        (Path(moved) / other.path.name / name).touch()
    expected = (tmp_path / "elsewhere" / other.path.name).resolve()
    assert RunFolder.find(None, tmp_path / "elsewhere").path == expected
    assert len(list(Path(moved).iterdir())) == 3  # no temporary link


def test_a_folder_in_the_place_of_latest_is_left_alone(tmp_path):
    """Oracle: the folder's file, and no new run beside it."""
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest" / "mine").write_text("x")
    statistics = Statistics(np.zeros((2, 2, 3), np.float32), np.eye(3))
    with pytest.raises(AlexNetError, match="latest: must be ours"):
        RunFolder.create(tmp_path, config(), statistics, EMPTY)
    assert [p.name for p in tmp_path.rglob("*")] == ["latest", "mine"]


def test_runs_that_begin_together_get_folders_of_their_own_and_latest_leads_to_one(tmp_path):
    """Oracle: eight threads, eight paths; `latest` is followed at every moment of a hundred changes."""
    statistics = Statistics(np.zeros((2, 2, 3), np.float32), np.eye(3))
    with ThreadPoolExecutor(8) as pool:
        begin = [
            pool.submit(RunFolder.create, tmp_path, config(), statistics, EMPTY) for _ in range(8)
        ]
        runs = [future.result() for future in begin]
        assert len({run.path for run in runs}) == 8
        assert all(run.config() == config() for run in runs)
        runs[0].become_latest()
        changes = [
            pool.submit(lambda run=run: [run.become_latest() for _ in range(12)]) for run in runs
        ]
        while not all(change.done() for change in changes):
            assert (tmp_path / "latest" / "config.json").is_file()
        for change in changes:
            change.result()


def test_find_names_what_is_missing(run):
    """Oracle: the name of the missing folder or file, each in turn."""
    with pytest.raises(AlexNetError, match=r"no trained model in .*runs/: `alexnet train`"):
        RunFolder.find(None, run.path.parent)
    with pytest.raises(AlexNetError, match=r"runs/absent: no such run folder"):
        RunFolder.find(run.path.parent / "absent")
    with pytest.raises(AlexNetError, match=r"config\.json: no such run folder"):
        RunFolder.find(run.path / "config.json")
    for name in NEEDED:
        (run.path / name).touch()
    assert RunFolder.find(run.path).path == run.path
    for name in NEEDED:
        (run.path / name).unlink()
        with pytest.raises(AlexNetError, match=f"{run.path.name}.*{name} is missing"):
            RunFolder.find(run.path)
        (run.path / name).touch()


@pytest.mark.parametrize("recipe", [PAPER, NOTEBOOK, TINY], ids=lambda recipe: recipe.name)
def test_card_and_statistics_come_back_equal(run, recipe):
    """Oracle: equality of frozen data classes, and of arrays bit for bit."""
    size = recipe.resize_size
    statistics = Statistics(np.full((size, size, 3), 1 / 3, np.float32), np.eye(3) / 7)
    again = RunFolder(RunFolder.create(run.path.parent, config(recipe), statistics, EMPTY).path)
    assert again.config() == config(recipe)
    assert bits(vars(again.statistics(recipe))) == bits(vars(statistics))


def _without(name):
    def damage(text):
        data = json.loads(text)
        del data[name]
        return json.dumps(data)

    return damage


DAMAGE = {
    "empty": lambda text: "",
    "deep": lambda text: "[" * 100_000,
    "cut": lambda text: text[: len(text) // 2],
    "not UTF-8": lambda text: b"\xff\xfe" + text.encode(),
    "list": lambda text: "[]",
    "number": lambda text: "3",
    "future": lambda text: text.replace('"format": 1', '"format": 2'),
    "unknown key": lambda text: text.replace('"seed"', '"sead"'),
    "unknown constant": lambda text: text.replace('"crop_size"', '"crop"'),
    "recipe is a list": lambda text: json.dumps({**json.loads(text), "recipe": []}),
    "convs is a number": lambda text: json.dumps({**json.loads(text), "recipe": {"convs": 1}}),
    "classes is null": lambda text: json.dumps({**json.loads(text), "classes": None}),
    **{f"no {field.name}": _without(field.name) for field in fields(RunConfig)},
    "no format": _without("format"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_card_is_refused(run, damage):
    """Oracle: the error names the file, or the recipe as the part that can't be read."""
    path = run.path / "config.json"
    content = DAMAGE[damage](path.read_text())
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(AlexNetError, match=r"config\.json|the recipe can't be read"):
        run.config()


def test_history_reads_back_as_written(run):
    """Oracle: the rows, parsed by the csv module with each float's shortest exact text."""
    rows = [
        EpochRow(1, 0.1 + 0.2, 1 / 3, 1e-17, 0.5, None, 0.01, 812.5, 3.0),
        EpochRow(2, math.inf, 0.0, 2.5e300, 1.0, 0.875, 0.001, 1e6 / 7, 12.25),
    ]
    run.write_history(rows[:1])
    run.write_history(rows)
    text = (run.path / "history.csv").read_bytes().decode()
    found = list(csv.DictReader(io.StringIO(text, newline="")))
    assert list(found[0]) == [field.name for field in fields(EpochRow)]
    assert found[0]["val_top5"] == ""  # fewer than five classes
    parsed = [{k: float(v) if v else None for k, v in row.items()} for row in found]
    assert [EpochRow(**row) for row in parsed] == rows
    assert "\r" not in text
