"""Runs from someone else: whatever is in the folder, the answer is one line, soon and small.

Each attack goes through the functions that the commands call, in a process that may not take more
than 1 GB beyond what TensorFlow holds: without that limit a test that fails would take the machine.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import time
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from helpers import QUICK, run

from alexnet_cli.data.images import open_rgb
from alexnet_cli.data.manifest import MANIFEST
from alexnet_cli.errors import AlexNetError
from alexnet_cli.inference import prediction
from alexnet_cli.network.architecture import build_alexnet
from alexnet_cli.network.caffe_weights import read_caffe
from alexnet_cli.network.keras_network import read_weights
from alexnet_cli.network.shapes import count_weights
from alexnet_cli.recipes.presets import PAPER, RECIPES
from alexnet_cli.recipes.variants import VARIANTS, vary
from alexnet_cli.reports import paper_figures
from alexnet_cli.runs.models import load_member
from alexnet_cli.runs.run_folder import RunFolder
from alexnet_cli.runs.weights_file import load_arrays, load_notes, save_arrays
from alexnet_cli.training import start_and_resume
from alexnet_cli.training.devices import choose_devices


@pytest.fixture(scope="module")
def trained(photographs, tmp_path_factory):
    return run(photographs, tmp_path_factory.mktemp("runs"), replace(QUICK, epochs=1)).run


@pytest.fixture
def sent(trained, tmp_path):
    """A copy of a sound run, without checksums: who sends it can make those anew."""
    copy = Path(shutil.copytree(trained, tmp_path / "runs" / "sent"))
    arrays = load_arrays(copy / "statistics.npz")
    load_notes(arrays)
    save_arrays(copy / "statistics.npz", arrays)
    return copy


@pytest.fixture
def little_memory():
    """Let this process grow by 1 GB and no more."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


# What `predict` and `evaluate`, `train --resume`, `train --weights`, `recipes` and `figures` call.
READERS = {
    "predict": load_member,
    "evaluate": lambda path: load_member(path).trained_on,
    "resume": lambda path: start_and_resume.resume(path, devices=choose_devices(0), epochs=9),
    "weights": read_weights,
    "recipes": lambda path: (RunFolder.find(path).recipe(), RunFolder.find(path).findings()),
    "figures": lambda path: paper_figures.draw([path, path]),
}


def assert_refused(path, match, readers=READERS):
    """Every one of the readers says so, in one line, within seconds."""
    for name in readers:
        began = time.monotonic()
        with pytest.raises(AlexNetError, match=match) as refused:
            READERS[name](path)
        assert "\n" not in str(refused.value), name
        assert time.monotonic() - began < 5, name


# config.json


def _constant(**values):
    return lambda config: config["recipe"].update(values)


def _dense(**values):
    return lambda config: [layer.update(values) for layer in config["recipe"]["dense"]]


def _conv(**values):
    return lambda config: config["recipe"]["convs"][1].update(values)


CARDS = {
    "a giant layer": (_dense(units=999_999_999), "units must be a whole number above 0 and below"),
    "many wide layers": (_dense(units=900_000), r"network of .* weights; at most 500,000,000"),
    "a giant crop": (_constant(crop_size=4000, resize_size=4096), "outputs for an image; at most"),
    "a giant image": (_constant(resize_size=10**6), "resize_size must be .* below 4,097"),
    "a crop beyond the image": (_constant(crop_size=200), "can't be larger than what it is cut"),
    "a giant number": (_constant(batch_size=10**30), r"batch_size: expected int"),
    "many layers": (
        lambda config: config["recipe"]["convs"][1].update(post_ops=["relu"] * 10**4),
        "layers; at most 100",
    ),
    "many towers": (_conv(towers=12_000, filters=12_000), "towers must be .* below 100"),
    "a window of a million": (_constant(lrn_n=10**6 - 1), "lrn_n must be .* below 100"),
    "nothing left": (_constant(pool_size=70), "nothing is left to slide over"),
    "many classes": (
        lambda config: (
            _dense(units=9000)(config),
            config.update(classes=list(map(str, range(60_000)))),
        ),
        "network of .* weights; at most",
    ),
    "a bool for a number": (_constant(epochs=True), "epochs: expected int"),
    "text for a number": (_constant(momentum="0.9"), "momentum: expected float"),
    "an unknown step": (_conv(post_ops=["exec"]), "then must be one of"),
    "a path as name": (_constant(name="../../../tmp/x"), "name can't be part of a folder"),
    "an unknown precision": (lambda config: config.update(precision="int8"), "precision must be"),
    "a negative seed": (lambda config: config.update(seed=-1), "seed not negative"),
    "no classes": (lambda config: config.update(classes=[]), "classes must be different names"),
    "the same class twice": (lambda config: config.update(classes=["a", "a"]), "different names"),
    "a class that is a number": (lambda config: config.update(classes=[1]), "expected str"),
    "data that is a number": (lambda config: config.update(data=3), "data: expected str"),
    "other classes": (lambda config: config.update(classes=["a", "b", "c"]), "has other classes"),
}


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("attack", CARDS)
def test_a_card_that_asks_for_too_much_or_for_nonsense_is_refused(sent, attack):
    """Oracle: our own error with the constant's name; a limit of memory and of seconds."""
    change, match = CARDS[attack]
    config = json.loads((sent / "config.json").read_text())
    change(config)
    (sent / "config.json").write_text(json.dumps(config))
    only_data = attack == "other classes"
    assert_refused(sent, match, ("evaluate", "resume") if only_data else READERS)


TEXTS = {
    "deep": (b'{"format":' + b"[" * 10**6, "nested without end"),
    "twice": (b'{"format": 1, "format": 1}', "a name twice"),
    "NaN": (b'{"format": NaN}', "NaN is no number"),
    "a number of a million digits": (b'{"format": 1' + b"0" * 10**6 + b"}", "Exceeds the limit"),
    "infinite by exponent": (b'{"format": 1e999}', "another version"),
    "17 MB": (b" " * 17_000_000 + b"{}", "more than 16,777,216 bytes"),
}


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("attack", TEXTS)
def test_json_that_is_a_trap_is_refused(sent, attack):
    text, match = TEXTS[attack]
    (sent / "config.json").write_bytes(text)
    assert_refused(sent, f"config.json: can't be read: .*{match}")


# Arrays


def npy(shape, dtype="<f4", body=b""):
    """A .npy file that claims to be of `shape`."""
    file = BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + body


def archive(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)


def lie(path):
    archive(path, {"fc6/kernel": npy((50_000, 50_000)), "notes": npy((10**12,), "|u1")})


def inflate(path):
    zeros = npy((1 << 25,), "|u1", bytes(1 << 25))
    archive(path, {"fc6/kernel": zeros, "notes": zeros}, zipfile.ZIP_DEFLATED)


def sparse(path):
    with path.open("r+b") as file:
        file.truncate(1 << 40)


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def link_to(target):
    def link(path):
        path.unlink()
        path.symlink_to(target)

    return link


def grow(path):
    save_arrays(path, {**load_arrays(path), "more": np.zeros(5_000_000, np.float32)})


def repeat(path):
    """1000 entries of the directory for one megabyte of data."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("0.npy", npy((1 << 20,), "|u1", bytes(1 << 20)))
        for number in range(1, 1000):
            entry = zipfile.ZipInfo(f"{number}.npy")
            first = file.getinfo("0.npy")
            for slot in ("header_offset", "CRC", "compress_size", "file_size"):
                setattr(entry, slot, getattr(first, slot))
            file.filelist.append(entry)


ARRAYS = {
    "shapes that nothing fills": (lie, "of shape|damaged"),
    "a deflate bomb": (inflate, "compressed"),
    "a terabyte of nothing": (sparse, "more than .* bytes"),
    "a pipe": (pipe, "not a regular file|missing"),
    "a link out": (link_to("/etc/passwd"), "it is a link"),
    "an endless device": (link_to("/dev/zero"), "it is a link|missing"),
    "more than the network needs": (grow, "more than .* bytes"),
    "entries that share their bytes": (repeat, "lie in one another|not where they should be"),
}


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("attack", ARRAYS)
@pytest.mark.parametrize("name", ["best.npz", "last.npz", "statistics.npz"])
def test_arrays_that_are_a_trap_are_refused(sent, name, attack):
    """Oracle: our own error with the file's name; a limit of memory and of seconds."""
    change, match = ARRAYS[attack]
    change(sent / name)
    # who does not read a file need not refuse it
    readers = {"best.npz": ("predict", "weights"), "last.npz": ("resume",)}
    assert_refused(sent, rf"{name}.*({match})", readers.get(name, ("predict", "resume")))


def test_weights_that_are_not_finite_are_refused(sent):
    """Oracle: the name of the array, for each command that uses it."""
    for name, array in (("best.npz", "conv1/kernel"), ("last.npz", "velocity/fc6/kernel")):
        arrays = {key: value.copy() for key, value in load_arrays(sent / name).items()}
        arrays[array].flat[7] = np.inf
        save_arrays(sent / name, arrays)
    assert_refused(sent, r"conv1/kernel: holds values that are not finite", ["predict"])
    assert_refused(sent, r"velocity/fc6/kernel: holds values that are not finite", ["resume"])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda notes: notes["part"].update(done=10**6), "claims epoch 1 and 1000000 of 33 images"),
        (lambda notes: notes["part"].update(done=-1), "claims"),
        (lambda notes: notes.update(history=[]), "claims"),
        (lambda notes: notes["schedule"].update(best_epoch="x"), "schedule: best_epoch: exp"),
        (lambda notes: notes.update(planned="x"), "planned: expected int"),
        (lambda notes: notes["history"][0].update(epoch=1.5), "history: epoch: expected int"),
        (lambda notes: notes.update(findings=[{"kind": 1}]), "missing or unknown in Finding"),
    ],
)
def test_notes_that_lie_are_refused(sent, change, match):
    """Oracle: the name of the note."""
    arrays = load_arrays(sent / "last.npz")
    notes = load_notes(arrays)
    change(notes)
    save_arrays(sent / "last.npz", arrays, notes)
    assert_refused(sent, rf"last\.npz: can't be resumed: .*{match}", ["resume"])


# Manifest, links, images


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"path": "../../etc/passwd"}, "leaves the folder"),
        ({"path": "a\0b"}, "null character"),
        ({"path": "\ud800"}, "surrogates not allowed"),
        ({"path": "x" * 70_000}, "is not JSON"),
        ({"shard": "x", "offset": 0, "length": 10**12, "crc32": 0}, "'length' and 'crc32' can't"),
        ({"shard": "x", "offset": 10**30, "length": 1, "crc32": 0}, "'length' and 'crc32' can't"),
        ({"shard": "../x", "offset": 0, "length": 1, "crc32": 0}, "no file beside"),
    ],
)
def test_a_manifest_that_leads_elsewhere_is_refused(sent, change, match):
    """Oracle: our own error with file and line."""
    header, first, *rest = (sent / MANIFEST).read_text().splitlines()
    lines = [header, json.dumps({**json.loads(first), **change}), *rest]
    (sent / MANIFEST).write_text("\n".join(lines) + "\n")
    assert_refused(sent, rf"{MANIFEST}:2: .*{match}", ("evaluate", "resume"))


def test_latest_leads_to_no_other_folder(sent, trained, monkeypatch):
    """Oracle: a sound run elsewhere, which is not opened by way of the link."""
    (sent.parent / "latest").symlink_to(trained)
    monkeypatch.chdir(sent.parent.parent)
    with pytest.raises(AlexNetError, match="leads out of runs/; name the run itself"):
        RunFolder.find(None)
    (sent.parent / "latest").unlink()
    (sent.parent / "latest").symlink_to("sent")
    assert RunFolder.find(None).path == Path("runs/sent")


def test_figures_are_not_drawn_by_way_of_a_link(sent, tmp_path):
    """Oracle: the folder that the link leads to stays empty."""
    (tmp_path / "precious").mkdir()
    (sent / "figures").symlink_to(tmp_path / "precious")
    assert_refused(sent, "figures: is a link", ["figures"])
    assert list((tmp_path / "precious").iterdir()) == []


def test_an_image_that_never_ends_is_refused(tmp_path):
    """Oracle: the reason; without it the test would not end."""
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "zero.jpg"):
        with pytest.raises(AlexNetError, match="not a regular file"):
            open_rgb(tmp_path / name)


# Checksums


@pytest.mark.parametrize("name", ["config.json", MANIFEST])
def test_a_flipped_bit_in_text_is_noticed_before_it_is_read(trained, tmp_path, name):
    """Law: SHA-256; the damaged byte is one that leaves the text sound, a digit."""
    copy = Path(shutil.copytree(trained, tmp_path / "run"))
    content = bytearray((copy / name).read_bytes())
    place = content.index(b'"seed": 0') + 8
    content[place] ^= 1  # 0 becomes 1
    (copy / name).write_bytes(content)
    assert_refused(copy, f"{name}: is damaged or was changed", ("evaluate", "resume"))


def test_a_run_without_checksums_opens_as_before(sent, photographs):
    """Oracle: the class with the highest probability is there; the run was written before."""
    photo = next(photographs.rglob("*.png"))
    (outcome,) = prediction.predict([photo], models=[sent])
    assert sum(outcome.probabilities) == pytest.approx(1)


# Caffe's file


class _Hello:
    def __reduce__(self):
        return (print, ("hello",))


def _pickled(content: bytes) -> bytes:
    return npy((), "|O", content)


CAFFE_FILES = {
    "code": _pickled(pickle.dumps(_Hello())),
    "a million lists": _pickled(b"\x80\x02" + b"]" * 10**6 + b"."),
    "a string of 2⁶² bytes": _pickled(b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"."),
    "nothing": b"",
}


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("attack", CAFFE_FILES)
def test_a_pickle_that_is_a_trap_is_refused(tmp_path, capsys, attack):
    """Oracle: our own error, nothing printed, a limit of memory and of seconds."""
    path = tmp_path / "bvlc_alexnet.npy"
    path.write_bytes(CAFFE_FILES[attack])
    with pytest.raises(AlexNetError, match="not the weights of Caffe's AlexNet"):
        read_caffe(path)
    assert capsys.readouterr().out == ""


# How large a network is


@pytest.mark.parametrize("name", [*RECIPES, *VARIANTS])
def test_weights_are_counted_as_keras_counts_them(name):
    """Oracle: the network that Keras builds of it, with its layers narrowed."""
    recipe = RECIPES[name] if name in RECIPES else vary(PAPER, name)
    narrow = replace(
        recipe,
        convs=tuple(replace(conv, filters=conv.filters // 8) for conv in recipe.convs),
        dense=tuple(replace(layer, units=16) for layer in recipe.dense),
    )
    assert build_alexnet(narrow, 7).count_params() == count_weights(narrow, 7)
