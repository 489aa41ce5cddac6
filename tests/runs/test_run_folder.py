"""Run folders: complete or absent, read back bit for bit, and never unpickled."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from array_files import entry, metadata, write_file, write_raw
from helpers import HANG, TINY

from alexnet_cli.data.manifest import Manifest
from alexnet_cli.data.statistics import Statistics
from alexnet_cli.errors import AlexNetError
from alexnet_cli.recipes.presets import NOTEBOOK, PAPER
from alexnet_cli.runs.checkpoint import CheckpointMeta
from alexnet_cli.runs.config import FORMAT, RunConfig
from alexnet_cli.runs.records import EpochRow
from alexnet_cli.runs.run_folder import BEST, LAST, STATISTICS, RunFolder
from alexnet_cli.runs.weights_file import load_arrays, read_notes, save_arrays
from alexnet_cli.system.atomic_files import atomic_write, remove_leftovers

META = CheckpointMeta(planned_epochs=9)
ARRAYS = {
    "weights": np.array([[0.1, -0.0, np.inf], [np.nan, 1e-45, -3e38]], np.float32),
    "mean": np.array([1 / 3, math.pi]),
    "order": np.array([2**62, -5]),
    "pixels": np.arange(256, dtype=np.uint8).reshape(4, 8, 8).swapaxes(0, 2),  # not contiguous
    "scalar": np.array(7, np.int32),
    "nothing": np.empty((0, 3), np.float32),
}
EMPTY = Manifest(Path("/data"), Path("/data"), ("a", "b"), (), (), 0, seed=0, val=0.1)
NOTES = {"epoch": 3, "name": "Zürich ✓", "history": [[1, 0.1], []], "none": None}
NEEDED = ("config.json", STATISTICS, "manifest.jsonl", BEST, LAST)


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
    """A small undamaged file with notes."""
    path = tmp_path / "arrays.safetensors"
    save_arrays(path, ARRAYS, NOTES)
    return path


# Complete or absent


def test_a_written_file_replaces_the_old_one_with_default_permissions(tmp_path):
    """Oracle: the new bytes, no other file, and the mode that open() gives a new file."""
    path, plain = tmp_path / "file", tmp_path / "plain"
    path.write_bytes(b"old and longer than the new one")
    plain.write_bytes(b"")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes().startswith(b"old")  # unchanged until the new file is complete
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode == plain.stat().st_mode
    assert sorted(tmp_path.iterdir()) == [path, plain]


@pytest.mark.parametrize("error", [RuntimeError, OSError, KeyboardInterrupt])
@pytest.mark.parametrize("old", [b"old", None], ids=["replacing", "new"])
def test_an_exception_while_writing_changes_nothing(tmp_path, error, old):
    """Oracle: the folder as before, and the exception of the body."""
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
    """Oracle: the old bytes, after SIGKILL, which can't be handled, within the body."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    code = (
        "import os, pathlib, signal, sys; from alexnet_cli.system.atomic_files import atomic_write\n"
        "with atomic_write(pathlib.Path(sys.argv[1])) as file:\n"
        "    file.write(bytes(100_000)); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", code, path], cwd=root, timeout=HANG, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2  # the kill came while the file was being written
    remove_leftovers(path)
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_are_removed_and_not_followed(tmp_path):
    """Oracle: the target of a link among them and a file of another name, which are kept."""
    for name in ("precious", ".file.a", ".file2.b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kept").write_bytes(b"x")
    (tmp_path / ".file.c").symlink_to("precious")
    (tmp_path / ".file.d").write_bytes(b"x")
    remove_leftovers(tmp_path / "file")
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert found == [".file2.b", ".file2.b/kept", "precious", "precious/kept"]


# Arrays


def test_arrays_and_notes_are_read_back_bit_for_bit(saved):
    """Oracle: dtype, shape and bytes of what was saved, including NaN, −0 and denormals."""
    assert read_notes(saved) == NOTES
    assert bits(load_arrays(saved)) == bits(ARRAYS)
    assert bits(load_arrays(saved, only="mean")) == bits({"mean": ARRAYS["mean"]})
    save_arrays(saved, {})
    assert (load_arrays(saved), read_notes(saved)) == ({}, {})


def test_the_safetensors_library_reads_the_same_arrays(saved):
    """Oracle: the reader of the library; CRC-32 checksums by zlib."""
    assert bits(safetensors.numpy.load_file(saved)) == bits(ARRAYS)
    with safetensors.safe_open(saved, framework="np") as file:
        strings = file.metadata()
    assert json.loads(strings["notes"]) == NOTES
    expected = {name: f"{zlib.crc32(array.tobytes()):08x}" for name, array in ARRAYS.items()}
    assert json.loads(strings["crc32"]) == expected


def test_a_file_written_by_the_safetensors_library_is_read(tmp_path):
    """Oracle: the arrays given to the safetensors library, in C order, with checksums in the metadata."""
    arrays = {name: np.asarray(array, order="C") for name, array in ARRAYS.items()}
    dtypes = dict(zip(ARRAYS, ["F32", "F64", "I64", "U8", "I32", "F32"]))
    entries = {name: entry(array, dtype=dtypes[name]) for name, array in arrays.items()}
    sums = {name: zlib.crc32(array.tobytes()) for name, array in arrays.items()}
    path = tmp_path / "theirs.safetensors"
    safetensors.numpy.save_file(arrays, path, metadata(entries, sums, json.dumps(NOTES)))
    assert bits(load_arrays(path)) == bits(ARRAYS)
    assert read_notes(path) == NOTES


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3).T,
        np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
        np.arange(20, dtype=np.int32)[::3],
        np.arange(20, dtype=np.uint8)[::-1],
        np.broadcast_to(np.float16(0.1), (3, 4)),
        np.arange(5, dtype=">f4"),
        np.array(7, dtype=">i8"),
        np.array([[True, False], [True, True]]).T,
        np.arange(3, dtype=np.uint32),
    ],
    ids=[
        "transposed",
        "Fortran",
        "strided",
        "reversed",
        "broadcast",
        "big-endian",
        "0-d",
        "?",
        "u4",
    ],
)
def test_an_array_is_saved_by_value_whatever_its_layout_in_memory(tmp_path, array):
    """Oracle: NumPy's comparison, for our reader and the library's, which writes the memory as it is."""
    path = tmp_path / "a.safetensors"
    save_arrays(path, {"a": array})
    for found in (load_arrays(path)["a"], safetensors.numpy.load_file(path)["a"]):
        assert found.dtype == array.dtype.newbyteorder("<")
        np.testing.assert_array_equal(found, array)


def test_loaded_arrays_are_read_only_and_survive_the_replacement_of_their_file(saved):
    """Oracle: the bits before; the error of NumPy on writing."""
    loaded = load_arrays(saved)
    save_arrays(saved, {name: np.zeros_like(array) for name, array in ARRAYS.items()})
    assert bits(loaded) == bits(ARRAYS)
    saved.unlink()
    assert bits(loaded) == bits(ARRAYS)
    with pytest.raises(ValueError, match="read-only"):
        loaded["mean"][0] = 1


def test_saving_takes_no_second_copy_of_the_arrays(tmp_path):
    """Oracle: the process's peak of resident memory, as the kernel counts it, in a separate process."""
    code = (
        "import pathlib, resource, sys; import numpy as np\n"
        "from alexnet_cli.runs.weights_file import save_arrays\n"
        "arrays = {'a': np.ones(50 << 20, np.uint8)}\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "save_arrays(path, {'a': np.ones(3)})\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak(); save_arrays(path, arrays); print(peak() - before)\n"
    )
    command = [sys.executable, "-c", code, tmp_path / "a.safetensors"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 25


def test_reading_does_not_import_the_safetensors_library(saved):
    """Oracle: sys.modules of a new process; the positive control is writing."""
    code = (
        "import pathlib, sys\n"
        "from alexnet_cli.runs.weights_file import load_arrays, read_notes, save_arrays\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "arrays = load_arrays(path); read_notes(path); print('safetensors' in sys.modules)\n"
        "save_arrays(path, arrays); print('safetensors' in sys.modules)\n"
    )
    root, command = Path(__file__).parents[2], [sys.executable, "-c", code, saved]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_a_system_error_while_saving_is_an_oserror_and_keeps_the_old_file(saved):
    """Oracle: EFBIG from the kernel's limit on file sizes, the old bytes, no other file."""
    whole, limit = saved.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limit[1]))
    try:
        with pytest.raises(OSError, match="File too large") as refused:
            save_arrays(saved, {"a": np.ones(1 << 20)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert (refused.value.errno, refused.value.filename) == (errno.EFBIG, str(saved))
    assert saved.read_bytes() == whole
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80, 0xFF])
def test_a_damaged_byte_is_detected_or_harmless(saved, mask):
    """Law: whichever byte changes, the file is refused or its arrays and notes are unchanged."""
    whole, path = saved.read_bytes(), saved.with_name("damaged.safetensors")
    expected, refused = (bits(load_arrays(saved)), read_notes(saved)), 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= mask
        path.write_bytes(damaged)
        try:
            assert (bits(load_arrays(path)), read_notes(path)) == expected, place
        except AlexNetError as error:
            assert "damaged.safetensors: damaged or not an array file" in str(error)  # noqa: PT017
            refused += 1
    assert refused > len(whole) * 0.99  # the rest is white space


def test_only_requested_arrays_are_checked(saved):
    """Oracle: a flipped bit in another array, which is detected when that array is requested."""
    content = bytearray(saved.read_bytes())
    content[content.index(ARRAYS["mean"].tobytes())] ^= 1
    saved.write_bytes(content)
    assert bits(load_arrays(saved, only="order")) == bits({"order": ARRAYS["order"]})
    assert read_notes(saved) == NOTES
    for only in ("mean", None):
        with pytest.raises(AlexNetError, match="the CRC-32 of 'mean' does not match"):
            load_arrays(saved, only=only)


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(saved, keep):
    """Law: no prefix of an array file is an array file."""
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(keep * len(whole))])
    for read in (load_arrays, read_notes):
        with pytest.raises(AlexNetError, match=r"arrays\.safetensors: damaged"):
            read(saved)


A, B = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(4, np.float32)
DATA, ONE, TWO = A.tobytes() + B.tobytes(), entry(A), entry(B, 24)
LIES = {
    "a gap": ({"a": ONE, "b": entry(B, 28)}, DATA + bytes(4), "not in its place"),
    "an overlap": ({"a": ONE, "b": entry(B, 20)}, DATA[:-4], "not in its place"),
    "the same bytes twice": ({"a": ONE, "b": ONE}, A.tobytes(), "not in its place"),
    "bytes before": ({"a": entry(B, 24)}, DATA, "not in its place"),
    "bytes behind": ({"a": ONE}, DATA, "do not end with the file"),
    "beyond the file": ({"a": ONE, "b": TWO}, DATA[:-1], "buffer is too small"),
    "a larger shape": ({"a": {**ONE, "shape": [2, 4]}}, A.tobytes(), "buffer is too small"),
    "a smaller shape": ({"a": {**ONE, "shape": [5]}}, A.tobytes(), "not of its dtype and shape"),
    "a wider dtype": ({"a": {**ONE, "dtype": "F64"}}, A.tobytes(), "buffer is too small"),
    "an unknown dtype": ({"a": {**ONE, "dtype": "F8"}}, A.tobytes(), "F8"),
    "a dtype of NumPy": ({"a": {**ONE, "dtype": "<f4"}}, A.tobytes(), "<f4"),
    "a dtype that is a list": ({"a": {**ONE, "dtype": []}}, A.tobytes(), "unhashable"),
    "negative sizes": ({"a": {**ONE, "shape": [-2, -3]}}, A.tobytes(), ""),
    "a fraction": ({"a": {**ONE, "shape": [2.0, 3]}}, A.tobytes(), ""),
    "text for a shape": ({"a": {**ONE, "shape": "6"}}, A.tobytes(), ""),
    "text for offsets": ({"a": {**ONE, "data_offsets": ["", "a"]}}, A.tobytes(), ""),
    "a bool for an offset": ({"a": {**ONE, "data_offsets": [False, 24.0]}}, A.tobytes(), ""),
    "an offset from the end": ({"a": {**ONE, "data_offsets": [0, -4]}}, DATA, ""),
    "three offsets": ({"a": {**ONE, "data_offsets": [0, 24, 24]}}, A.tobytes(), "too many values"),
    "a negative offset": ({"a": {**ONE, "data_offsets": [-24, 0]}}, A.tobytes(), ""),
    "reversed offsets": (
        {"a": {**ONE, "data_offsets": [24, 0]}},
        A.tobytes(),
        "buffer is too small",
    ),
    "many dimensions": ({"a": {**ONE, "shape": [9] * 10**6}}, A.tobytes(), ""),
    "nothing of giants": (
        {"a": {**ONE, "shape": [0, 10**400], "data_offsets": [0, 0]}},
        b"",
        "",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_inconsistent_header_is_refused(tmp_path, lie):
    """Oracle: the format's rules; all checksums are valid. The consistent file is read."""
    entries, data, match = LIES[lie]
    path = tmp_path / "a.safetensors"
    sums = {"a": zlib.crc32(A.tobytes()), "b": zlib.crc32(B.tobytes())}
    write_file(path, entries, data, sums)
    with pytest.raises(AlexNetError, match=rf"a\.safetensors: damaged or not .*{match}"):
        load_arrays(path)
    write_file(path, {"a": ONE, "b": TWO}, DATA)
    assert bits(load_arrays(path)) == bits({"a": A, "b": B})


HEADERS = {
    "nothing": (b"", ""),
    "no JSON": (b"PK\3\4", ""),
    "a list": (b"[]", ""),
    "no metadata": (b"{}", "__metadata__"),
    "no checksums": (b'{"__metadata__":{"notes":"{}"}}', "CRC-32 of the header is missing"),
    "metadata that is a list": (b'{"__metadata__":[]}', ""),
    "an array twice": (b'{"a":1,"a":1,"__metadata__":{}}', "same name twice"),
    "NaN": (b'{"__metadata__":NaN}', "NaN is not a number in JSON"),
    "nested without end": (b'{"a":' * 100_000, "nested too deeply"),
    "not UTF-8": (b'{"\xff":1}', ""),
}


@pytest.mark.parametrize("header", HEADERS)
def test_an_invalid_header_is_refused(tmp_path, header):
    """Oracle: AlexNetError with the name of the file, in one line."""
    text, match = HEADERS[header]
    path = tmp_path / "a.safetensors"
    write_raw(path, text)
    for read in (load_arrays, read_notes):
        with pytest.raises(AlexNetError, match=rf"a\.safetensors: damaged.*{match}") as refused:
            read(path)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("size", [17_000_000, 2**63, 2**64 - 1])
def test_a_header_with_a_giant_size_is_not_read(tmp_path, size):
    """Oracle: the limit of 16 MB, and the end of the file."""
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write(size.to_bytes(8, "little") + b"{}")
        file.truncate(17_000_008)
    with pytest.raises(AlexNetError, match=f"damaged or not .* a header of {size:,} bytes"):
        load_arrays(path)


def test_missing_file_and_missing_array_are_named(saved):
    """Oracle: the requested names."""
    with pytest.raises(AlexNetError, match=r"absent\.safetensors.*No such file"):
        load_arrays(saved.with_name("absent.safetensors"))
    with pytest.raises(AlexNetError, match=r"arrays\.safetensors.*velocity"):
        load_arrays(saved, only="velocity")


class _Bomb:
    """Creates a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("form", ["npz", "npy", "pickle"])
def test_nothing_is_unpickled(tmp_path, form):
    """Oracle: the folder that unpickling would create; the positive control is at the end."""
    path, marker = tmp_path / "weights.safetensors", tmp_path / "marker"
    bomb = np.array([_Bomb(marker)], dtype=object)
    with path.open("wb") as file:
        if form == "npz":
            np.savez(file, allow_pickle=True, weights=bomb)
        elif form == "npy":
            np.save(file, bomb, allow_pickle=True)
        else:
            pickle.dump(bomb, file)
    with pytest.raises(AlexNetError, match=r"weights\.safetensors: damaged"):
        load_arrays(path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(bomb))
    assert marker.exists()


@pytest.mark.parametrize("array", [np.array([None]), np.array(["a"]), np.array([1j])])
def test_arrays_of_other_dtypes_are_not_saved(tmp_path, array):
    """Oracle: the dtypes that the reader supports, and an empty folder."""
    with pytest.raises(ValueError, match=f"a: arrays of dtype {array.dtype} can't be saved"):
        save_arrays(tmp_path / "a.safetensors", {"a": array})
    assert list(tmp_path.iterdir()) == []


# The run folder


def test_runs_that_start_in_the_same_second_get_different_folders(tmp_path, run):
    """Oracle: four folders, for runs that start within milliseconds."""
    statistics = run.statistics
    others = [RunFolder.create(run.path.parent, config(), statistics, EMPTY) for _ in range(3)]
    assert len({run.path, *(other.path for other in others)}) == 4
    assert {p.name for p in run.path.parent.iterdir()} == {r.path.name for r in [run, *others]}
    assert all(r.path.name.split("-tiny")[1] in ("", "-2", "-3", "-4") for r in others)


def test_latest_points_to_the_newest_run_also_after_a_move(run, tmp_path):
    """Oracle: the target of the link is a relative name."""
    other = RunFolder.create(run.path.parent, config(), run.statistics, EMPTY)
    for newest in (run, other):
        newest.write_records(META, TINY)
        assert os.readlink(run.path.parent / "latest") == newest.path.name
    moved = shutil.move(run.path.parent, tmp_path / "elsewhere")
    for name in NEEDED:
        (Path(moved) / other.path.name / name).touch()
    expected = (tmp_path / "elsewhere" / other.path.name).resolve()
    assert RunFolder.find(None, tmp_path / "elsewhere").path == expected
    assert len(list(Path(moved).iterdir())) == 3  # no temporary link


def test_a_folder_named_latest_is_kept(tmp_path):
    """Oracle: the file in the folder, and no new run."""
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest" / "mine").write_text("x")
    statistics = Statistics(np.zeros((2, 2, 3), np.float32), np.eye(3))
    with pytest.raises(AlexNetError, match="latest: exists and is not a link"):
        RunFolder.create(tmp_path, config(), statistics, EMPTY)
    assert [p.name for p in tmp_path.rglob("*")] == ["latest", "mine"]


def test_concurrent_starts_get_different_folders_and_latest_is_always_valid(tmp_path):
    """Oracle: eight threads, eight paths; `latest` is resolved during a hundred changes."""
    statistics = Statistics(np.zeros((2, 2, 3), np.float32), np.eye(3))
    with ThreadPoolExecutor(8) as pool:
        begin = [
            pool.submit(RunFolder.create, tmp_path, config(), statistics, EMPTY) for _ in range(8)
        ]
        runs = [future.result() for future in begin]
        assert len({run.path for run in runs}) == 8
        assert all(run.config == config() for run in runs)
        runs[0].write_records(META, TINY)
        changes = [
            pool.submit(lambda run=run: [run.write_records(META, TINY) for _ in range(12)])
            for run in runs
        ]
        while not all(change.done() for change in changes):
            assert (tmp_path / "latest" / "config.json").is_file()
        for change in changes:
            change.result()


def test_find_names_the_missing_file(run):
    """Oracle: the name of the missing folder or file, each in turn."""
    with pytest.raises(
        AlexNetError, match=r"runs/: holds no trained model\. Train one with: alexnet train"
    ):
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
        with pytest.raises(AlexNetError, match=f"{run.path.name}.*(no {name}|{name} is missing)"):
            RunFolder.find(run.path)
        (run.path / name).touch()


@pytest.mark.parametrize(
    ("link", "problem"), [("gone", "leads to the run gone, which is gone"), (None, "is missing")]
)
def test_without_latest_the_newest_complete_run_is_named(run, tmp_path, link, problem):
    """Oracle: of three runs with files, the one that was trained last; no link counts as a run."""
    out = run.path.parent
    if link:
        (out / "latest").symlink_to(link)
    with pytest.raises(AlexNetError, match=r"holds no trained model\..*Train one with") as none:
        RunFolder.find(None, out)
    assert bool(link) == ("leads to the run gone, which is gone" in str(none.value))
    for age, name in enumerate(("one", "two", "three")):
        shutil.copytree(run.path, out / name)
        for needed in (BEST, LAST):
            (out / name / needed).touch()
        os.utime(out / name / LAST, (1e9 - age, 1e9 - age))
    (out / "one" / BEST).unlink()
    (out / "zero").symlink_to("two")
    with pytest.raises(AlexNetError, match=rf"latest: {problem}\. The newest run is .*runs/two$"):
        RunFolder.find(None, out)
    with pytest.raises(AlexNetError, match=r"The newest run is .*runs/one$"):
        RunFolder.find(out / "latest", begun=True)


@pytest.mark.parametrize("recipe", [PAPER, NOTEBOOK, TINY], ids=lambda recipe: recipe.name)
def test_config_and_statistics_are_read_back_equal(run, recipe):
    """Oracle: equality of frozen data classes, and of arrays bit for bit."""
    size = recipe.resize_size
    statistics = Statistics(np.full((size, size, 3), 1 / 3, np.float32), np.eye(3) / 7)
    again = RunFolder(RunFolder.create(run.path.parent, config(recipe), statistics, EMPTY).path)
    assert again.config == config(recipe)
    assert bits(vars(again.statistics)) == bits(vars(statistics))


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
    "future": lambda text: text.replace(f'"format": {FORMAT}', f'"format": {FORMAT + 1}'),
    "unknown key": lambda text: text.replace('"seed"', '"sead"'),
    "unknown hyperparameter": lambda text: text.replace('"crop_size"', '"crop"'),
    "recipe is a list": lambda text: json.dumps({**json.loads(text), "recipe": []}),
    "convs is a number": lambda text: json.dumps({**json.loads(text), "recipe": {"convs": 1}}),
    "classes is null": lambda text: json.dumps({**json.loads(text), "classes": None}),
    **{f"no {field.name}": _without(field.name) for field in fields(RunConfig)},
    "no format": _without("format"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_config_is_refused(run, damage):
    """Oracle: an error with the name of the file."""
    path = run.path / "config.json"
    content = DAMAGE[damage](path.read_text())
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(AlexNetError, match=r"config\.json"):
        print(run.config)


def test_history_is_read_back_as_written(run):
    """Oracle: the rows, parsed by the csv module with the shortest exact text of each float."""
    rows = [
        EpochRow(1, 0.1 + 0.2, 1 / 3, 0.7, 0.6, 1e-17, 0.5, None, 0.01, 812.5, 3.0),
        EpochRow(2, math.inf, 0.0, 2 / 3, 1.0, 2.5e300, 1.0, 0.875, 0.001, 1e6 / 7, 12.25),
    ]
    for n in (1, 2):
        run.write_records(CheckpointMeta(9, tuple(rows[:n])), TINY)
    text = (run.path / "history.csv").read_bytes().decode()
    found = list(csv.DictReader(io.StringIO(text, newline="")))
    assert list(found[0]) == [field.name for field in fields(EpochRow)]
    assert found[0]["val_top5"] == ""  # fewer than five classes
    parsed = [{k: float(v) if v else None for k, v in row.items()} for row in found]
    assert [EpochRow(**row) for row in parsed] == rows
    assert "\r" not in text
