"""Malicious run folders: each gets one line, within limits of time and memory.

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
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from array_files import entry, write_file, write_raw
from helpers import TINY, sign
from PIL import Image

from alexnet_cli.api.models import load
from alexnet_cli.api.runs import Run
from alexnet_cli.data.images import open_rgb
from alexnet_cli.data.manifest import MANIFEST
from alexnet_cli.errors import AlexNetError
from alexnet_cli.inference.neighbors import FeatureIndex
from alexnet_cli.network.architecture import build_alexnet
from alexnet_cli.network.caffe_weights import read_caffe
from alexnet_cli.network.weight_shapes import count_weights, weight_shapes
from alexnet_cli.recipes.presets import PAPER, RECIPES
from alexnet_cli.recipes.variants import VARIANTS, vary
from alexnet_cli.reports import paper_figures
from alexnet_cli.runs.models import load_model
from alexnet_cli.runs.run_folder import BEST, LAST, STATISTICS, RunFolder
from alexnet_cli.runs.weights_file import load_arrays, read_notes, save_arrays
from alexnet_cli.training import start_and_resume
from alexnet_cli.training.devices import choose_devices


@pytest.fixture
def sent(trained, tmp_path):
    """A copy of a valid run; `assert_refused` updates its checksums."""
    return Path(shutil.copytree(trained, tmp_path / "runs" / "sent"))


@pytest.fixture
def little_memory():
    """Limit the growth of this process to 1 GB."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


# What `predict` and `evaluate`, `train --resume`, `train --weights`, `recipes` and `figures` call.
READERS = {
    "predict": load_model,
    "evaluate": lambda path: load_model(path).trained_on,
    "resume": lambda path: start_and_resume.resume(path, devices=choose_devices(0), epochs=9),
    "weights": load_model,
    "recipes": lambda path: (
        RunFolder.find(path).recipe(),
        RunFolder.find(path).checkpoint().findings,
    ),
    "figures": lambda path: paper_figures.draw([path, path]),
}


def assert_refused(path, match, readers=READERS):
    """Every one of the readers says so, in one line, and before it has computed for long.

    The checksums fit, as whoever sends a run can compute them anew.
    """
    sign(path)
    for name in readers:
        began = time.process_time()
        with pytest.raises(AlexNetError, match=match) as refused:
            READERS[name](path)
        assert "\n" not in str(refused.value), name
        assert time.process_time() - began < 20, name


# config.json


def _recipe(**values):
    return lambda config: config["recipe"].update(values)


def _dense(**values):
    return lambda config: [layer.update(values) for layer in config["recipe"]["dense"]]


def _conv(**values):
    return lambda config: config["recipe"]["convs"][1].update(values)


CONFIGS = {
    "a giant layer": (
        _dense(units=999_999_999),
        "recipe.dense.0.units: must be less than 1,000,000. R",
    ),
    "many wide layers": (_dense(units=900_000), r"network has .* weights; at most 500,000,000"),
    "a giant crop": (_recipe(crop_size=4000, resize_size=4096), "outputs per image; at most"),
    "a giant image": (
        _recipe(resize_size=10**6),
        "recipe.resize_size: must be 4,096 or less. Received: 1000000",
    ),
    "a crop beyond the image": (_recipe(crop_size=200), "crop_size must be at most resize_size"),
    "a giant number": (
        _recipe(batch_size=10**30),
        r"recipe.batch_size: must be less than 1,000,000. Received: 10000",
    ),
    "many layers": (
        lambda config: config["recipe"]["convs"][1].update(post_ops=["relu"] * 10**4),
        "layers; at most 100",
    ),
    "many towers": (
        _conv(towers=12_000, filters=12_000),
        "recipe.convs.1.towers: must be less than 100. Received: 12000",
    ),
    "a window of a million": (
        _recipe(lrn_n=10**6 - 1),
        "recipe.lrn_n: must be less than 100. Received: 999999",
    ),
    "nothing left": (_recipe(pool_size=70), "the feature map shrinks to nothing in conv1"),
    "many classes": (
        lambda config: (
            _dense(units=9000)(config),
            config.update(classes=list(map(str, range(60_000)))),
        ),
        "network has .* weights; at most",
    ),
    "a bool for a number": (
        _recipe(epochs=True),
        "recipe.epochs: must be a whole number. Received: True",
    ),
    "text for a number": (
        _recipe(momentum="0.9"),
        "recipe.momentum: must be a number. Received: '0.9'",
    ),
    "an unknown step": (
        _conv(post_ops=["exec"]),
        "recipe.convs.1.post_ops.0: must be 'relu', .*Received: 'exec'",
    ),
    "a path as name": (_recipe(name="../../../tmp/x"), "name must be letters, digits"),
    "an unknown precision": (lambda config: config.update(precision="int8"), "precision must be"),
    "a negative seed": (lambda config: config.update(seed=-1), "the seed 0 or more"),
    "no classes": (lambda config: config.update(classes=[]), "classes must be distinct"),
    "the same class twice": (lambda config: config.update(classes=["a", "a"]), "must be distinct"),
    "a class that is a number": (
        lambda config: config.update(classes=[1]),
        r"classes.0: must be text. Received: 1",
    ),
    "data that is a number": (
        lambda config: config.update(data=3),
        "data: must be text. Received: 3",
    ),
    "no layers": (_recipe(convs=[]), "convs must hold at least one layer"),
    "an even window": (_recipe(lrn_n=4), "lrn_n must be odd"),
    "filters for half a tower": (_conv(filters=13), "conv2.filters must be divisible by"),
    "channels for half a tower": (
        lambda config: config["recipe"]["convs"][0].update(filters=9),
        r"conv2.towers must divide its input channels, 9 \(conv1.filters\)",
    ),
    "a layer without a bias": (
        lambda config: config["recipe"]["dense"][0].pop("bias"),
        "recipe.dense.0.bias: is missing",
    ),
    "names without end": (
        lambda config: config["recipe"].update(rationale=dict.fromkeys(map(str, range(10**6)), 1)),
        "an object has more than 10,000 names",
    ),
    "other classes": (lambda config: config.update(classes=["a", "b", "c"]), "has other classes"),
}


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("attack", CONFIGS)
def test_a_config_out_of_bounds_is_refused(sent, attack):
    """Oracle: AlexNetError with the name of the field; limits of memory and time."""
    change, match = CONFIGS[attack]
    config = json.loads((sent / "config.json").read_text())
    change(config)
    (sent / "config.json").write_text(json.dumps(config))
    only_data = attack == "other classes"
    assert_refused(sent, match, ("evaluate", "resume") if only_data else READERS)


TEXTS = {
    "deep": (b'{"format":' + b"[" * 10**6, "nested too deeply"),
    "twice": (b'{"format": 3, "format": 3}', "same name twice"),
    "NaN": (b'{"format": NaN}', "NaN is not a number in JSON"),
    "a number of a million digits": (b'{"format": 1' + b"0" * 10**6 + b"}", "Exceeds the limit"),
    "infinite by exponent": (b'{"format": 1e999}', "another version"),
    "17 MB": (b" " * 17_000_000 + b"{}", "more than 16,777,216 bytes"),
}


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("attack", TEXTS)
def test_hostile_json_is_refused(sent, attack):
    text, match = TEXTS[attack]
    (sent / "config.json").write_bytes(text)
    assert_refused(sent, f"config.json: can't be read: .*{match}")


# Arrays


def lie(path):
    big = {"dtype": "F32", "shape": [50_000, 50_000], "data_offsets": [0, 10**10]}
    write_file(path, {"fc6/kernel": big})


def giant_header(path):
    write_raw(path, b" " * 16_800_000 + b"{}")


def claimed_header(path):
    path.write_bytes((2**63).to_bytes(8, "little") + b"{}")


def nested_header(path):
    write_raw(path, b'{"a":' * 10**6)


def dimensions(path):
    """Four million dimensions, whose product takes minutes."""
    many = {"dtype": "F32", "shape": [9] * 4_000_000, "data_offsets": [0, 4]}
    write_file(path, {"fc6/kernel": many}, bytes(4))


def twice(path):
    """An otherwise valid file with an array that is twice in the header."""
    write_file(path, {"a": entry(np.zeros(1, np.float32))}, bytes(4))
    header, data = path.read_bytes()[8:-4], path.read_bytes()[-4:]
    write_raw(path, header[:-1] + b', "a": {}}', data)


def wrong_sums(path):
    array = np.zeros(1, np.float32)
    write_file(path, {"fc6/kernel": entry(array)}, array.tobytes(), {"fc6/kernel": 1})


def flip(path):
    """One bit of the last array."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def archive(path):
    """The same arrays in another format."""
    content = BytesIO()
    np.savez(content, **load_arrays(path))
    path.write_bytes(content.getvalue())


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
    save_arrays(
        path, {**load_arrays(path), "more": np.zeros(5_000_000, np.float32)}, read_notes(path)
    )


def repeat(path):
    """1000 arrays for one megabyte of data."""
    data = bytes(1 << 20)
    one = {"dtype": "U8", "shape": [1 << 20], "data_offsets": [0, 1 << 20]}
    write_file(path, {str(number): one for number in range(1000)}, data)


ARRAYS = {
    "shapes that nothing fills": (lie, "buffer is too small"),
    "a header of 17 MB": (giant_header, "a header of|more than .* bytes"),
    "a header that claims to be giant": (claimed_header, "a header of 9,223,372,036,854,775,808"),
    "a header nested without end": (nested_header, "nested too deeply"),
    "millions of dimensions": (dimensions, "maximum supported dimension"),
    "a name twice": (twice, "same name twice"),
    "wrong checksums": (wrong_sums, "CRC-32 of 'fc6/kernel' does not match"),
    "a flipped bit": (flip, "CRC-32 of .* does not match"),
    "a cut file": (cut, "buffer is too small"),
    "an archive": (archive, "a header of"),
    "a terabyte of nothing": (sparse, "more than .* bytes"),
    "a pipe": (pipe, "not a regular file|missing"),
    "a link out": (link_to("/etc/passwd"), "it is a link"),
    "an endless device": (link_to("/dev/zero"), "it is a link|missing"),
    "more than the network needs": (grow, "more than .* bytes"),
    "entries that share their bytes": (repeat, "not in its place"),
}


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("attack", ARRAYS)
@pytest.mark.parametrize("name", [BEST, LAST, STATISTICS])
def test_malicious_array_files_are_refused(sent, name, attack):
    """Oracle: AlexNetError with the name of the file; limits of memory and time."""
    change, match = ARRAYS[attack]
    change(sent / name)
    # readers that do not use the file need not refuse it
    readers = {BEST: ("predict", "weights"), LAST: ("resume",)}
    assert_refused(sent, rf"{name}.*({match})", readers.get(name, ("predict", "resume")))


def test_nan_and_infinite_weights_are_refused(sent):
    """Oracle: the name of the array, for each command that uses it."""
    for name, array in ((BEST, "conv1/kernel"), (LAST, "velocity/fc6/kernel")):
        arrays = {key: value.copy() for key, value in load_arrays(sent / name).items()}
        arrays[array].flat[7] = np.inf
        save_arrays(sent / name, arrays, read_notes(sent / name))
    assert_refused(sent, r"conv1/kernel: contains NaN or infinite values", ["predict"])
    assert_refused(sent, r"velocity/fc6/kernel: contains NaN or infinite values", ["resume"])


def test_weights_of_which_the_probabilities_are_nan_are_refused(sent, image_folder):
    """Oracle: 1e25 times 1e25 is infinite in float32, and the softmax of infinite logits is NaN."""
    arrays = {name: value.copy() for name, value in load_arrays(sent / BEST).items()}
    for name in ("fc6/kernel", "fc7/kernel", "fc8/kernel"):
        arrays[name][:] = 1e25
    save_arrays(sent / BEST, arrays, read_notes(sent / BEST))
    model = load(sent)
    for use in (model.predict, model.probabilities, model.evaluate):
        with pytest.raises(AlexNetError, match="so large that its probabilities are NaN"):
            use(image_folder)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda notes: notes["progress"].update(n_done=10**6),
            "claims 1000000 of 33 images of epoch 5",
        ),
        (lambda notes: notes["progress"].update(n_done=-1), "claims"),
        (lambda notes: notes["history"].pop(0), "not numbered from 1"),
        (lambda notes: notes.update(planned_epochs="x"), "planned_epochs: must be a whole"),
        (lambda notes: notes["history"][0].update(epoch=1.5), r"history\.0\.epoch: must be a"),
        (lambda notes: notes["history"][0].update(val_top1=1.5), r"history\.0\.val_top1: must be"),
        (lambda notes: notes.update(findings=[{"kind": 1}]), r"findings\.0\.kind: must be text"),
    ],
)
def test_inconsistent_notes_are_refused(sent, change, match):
    """Oracle: the name of the note."""
    notes = read_notes(sent / LAST)
    change(notes)
    save_arrays(sent / LAST, load_arrays(sent / LAST), notes)
    assert_refused(sent, rf"last\.safetensors: can't be (resumed|read): .*{match}", ["resume"])


# Manifest, links, images


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"path": "../../etc/passwd"}, "is outside the folder"),
        ({"path": "a\0b"}, "null character"),
        ({"path": "\ud800"}, "surrogates not allowed"),
        ({"path": "x" * 70_000}, "is not valid JSON"),
        ({"shard": "x", "offset": 0, "length": 10**12, "crc32": 0}, "'length' and 'crc32' can't"),
        ({"shard": "x", "offset": 10**30, "length": 1, "crc32": 0}, "'length' and 'crc32' can't"),
        ({"shard": "../x", "offset": 0, "length": 1, "crc32": 0}, "not a file beside"),
    ],
)
def test_a_manifest_with_paths_outside_its_folder_is_refused(sent, change, match):
    """Oracle: AlexNetError with file and line."""
    header, first, *rest = (sent / MANIFEST).read_text().splitlines()
    lines = [header, json.dumps({**json.loads(first), **change}), *rest]
    (sent / MANIFEST).write_text("\n".join(lines) + "\n")
    assert_refused(sent, rf"{MANIFEST}:2: .*{match}", ("evaluate", "resume"))


@pytest.mark.parametrize(
    ("split", "use", "match"),
    [
        ("val", lambda path: FeatureIndex(load_model(path)), "lists no training images"),
        ("train", READERS["figures"], "lists no test or validation images"),
        ("train", lambda path: load(path).export("onnx"), "lists no validation images"),
    ],
)
def test_a_manifest_without_the_images_of_a_split_is_refused(sent, split, use, match):
    """Oracle: the file, and the images that it lacks."""
    header, *lines = (sent / MANIFEST).read_text().splitlines()
    lines = [json.dumps({**json.loads(line), "split": split}) for line in lines]
    (sent / MANIFEST).write_text("\n".join([header, *lines]) + "\n")
    sign(sent)
    before = {path.name for path in sent.iterdir()}
    with pytest.raises(AlexNetError, match=rf"{MANIFEST}: {match}"):
        use(sent)
    assert {path.name for path in sent.iterdir()} == before


def test_names_with_line_breaks_do_not_break_the_line_of_an_error(sent):
    """Oracle: str.splitlines; the manifest lists a file of such a name twice."""
    header, first, *rest = (sent / MANIFEST).read_text().splitlines()
    twice = json.dumps({**json.loads(first), "path": "a\nb\u2028c"})
    (sent / MANIFEST).write_text("\n".join([header, twice, twice, *rest]) + "\n")
    sign(sent)
    with pytest.raises(AlexNetError, match="is listed twice") as refused:
        RunFolder.find(sent).manifest.counts()
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        *((0, name, "x" * 65_000) for name in ("alexnet_split", "val", "seed", "n_ignored")),
        *((1, name, "x" * 65_000) for name in ("class", "split", "sha256")),
        (0, "n_files", 10**4000),
        (1, "path", "../" * 20_000),
    ],
)
def test_an_error_is_short_however_long_a_value_is(sent, line, name, value):
    """Oracle: 1000 characters, of which the path of the folder is the longest part."""
    lines = [json.loads(text) for text in (sent / MANIFEST).read_text().splitlines()]
    lines[line][name] = value
    (sent / MANIFEST).write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    sign(sent)
    with pytest.raises(AlexNetError, match=MANIFEST) as refused:
        RunFolder.find(sent).manifest.counts()
    assert len(str(refused.value)) < 1000


def test_curves_of_a_run_without_a_finished_epoch_are_refused(sent):
    """Oracle: the reason; the history in the last checkpoint is empty, although there are weights."""
    notes = {**read_notes(sent / LAST), "history": []}
    save_arrays(sent / LAST, load_arrays(sent / LAST), notes)
    with pytest.raises(AlexNetError, match="no epoch is finished"):
        Run(sent).plot_curves()


@pytest.mark.parametrize("epoch", [-1, 0, 10**9])
def test_curves_are_drawn_without_the_epoch_of_weights_that_the_history_lacks(sent, epoch):
    """Oracle: the picture; a training writes the weights of an epoch before its history."""
    save_arrays(sent / BEST, load_arrays(sent / BEST), {"epoch": epoch})
    with Image.open(Run(sent).plot_curves()) as picture:
        assert picture.size == (1350, 540)


def test_a_link_latest_to_another_folder_is_refused(sent, trained, monkeypatch):
    """Oracle: a valid run elsewhere, which is not opened through the link."""
    (sent.parent / "latest").symlink_to(trained)
    monkeypatch.chdir(sent.parent.parent)
    with pytest.raises(AlexNetError, match=r"points out of runs/\. Give the path"):
        RunFolder.find(None)
    (sent.parent / "latest").unlink()
    (sent.parent / "latest").symlink_to("sent")
    assert RunFolder.find(None).path == Path("runs/sent")


def test_figures_are_not_written_through_a_link(sent, tmp_path):
    """Oracle: the target of the link stays empty."""
    (tmp_path / "precious").mkdir()
    (sent / "figures").symlink_to(tmp_path / "precious")
    assert_refused(sent, "figures: is a link", ["figures"])
    assert list((tmp_path / "precious").iterdir()) == []


def test_an_endless_image_is_refused(tmp_path):
    """Oracle: the reason; reading the file would never end."""
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "zero.jpg"):
        with pytest.raises(AlexNetError, match="not a regular file"):
            open_rgb(tmp_path / name)


# Checksums


@pytest.mark.parametrize("name", ["config.json", MANIFEST])
def test_a_flipped_bit_in_a_text_file_is_detected(trained, tmp_path, name):
    """Law: SHA-256; the damaged byte is a digit, so that the text remains valid."""
    copy = Path(shutil.copytree(trained, tmp_path / "run"))
    content = bytearray((copy / name).read_bytes())
    place = content.index(b'"seed": 0') + 8
    content[place] ^= 1  # 0 becomes 1
    (copy / name).write_bytes(content)
    for reader in ("evaluate", "resume"):
        with pytest.raises(AlexNetError, match=f"{name}: damaged, or changed"):
            READERS[reader](copy)


def test_a_run_without_checksums_is_refused(sent):
    """Oracle: one line that names the file which should have them."""
    save_arrays(sent / STATISTICS, load_arrays(sent / STATISTICS))
    with pytest.raises(AlexNetError, match=r"statistics\.safetensors: .*sha256"):
        load_model(sent)


# Caffe's file


class _Hello:
    def __reduce__(self):
        return (print, ("hello",))


def _pickled(content: bytes) -> bytes:
    """A .npy file of one Python object."""
    file = BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + content


CAFFE_FILES = {
    "code": _pickled(pickle.dumps(_Hello())),
    "a million lists": _pickled(b"\x80\x02" + b"]" * 10**6 + b"."),
    "a string of 2⁶² bytes": _pickled(b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"."),
    "nothing": b"",
    # Unpickling makes the list of the memo as long as its largest index: 8 bytes for each.
    "a memo of 2 GB": _pickled(b"\x80\x02]r" + (2**27).to_bytes(4, "little") + b"."),
    "a memo of 2 GB, as text": _pickled(b"]p134217728\n."),
    # Reading from a file allocates as many bytes as are asked for.
    "a frame of 2 GB": _pickled(b"\x80\x04\x95" + (2**31).to_bytes(8, "little") + b"]."),
    "bytes of 2 GB": _pickled(b"\x80\x04B" + (2**31 - 1).to_bytes(4, "little") + b"."),
    "a name of two lines": _pickled(b"\x80\x04\x8c\x03a\nb\x8c\x01c\x93."),
}


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("attack", CAFFE_FILES)
def test_a_malicious_pickle_is_refused(tmp_path, capsys, attack):
    """Oracle: AlexNetError of one line, no output, and no attempt to take more than 1 GB."""
    path = tmp_path / "bvlc_alexnet.npy"
    path.write_bytes(CAFFE_FILES[attack])
    with pytest.raises(AlexNetError, match="not the weights of Caffe's AlexNet") as refused:
        read_caffe(path)
    assert not isinstance(refused.value.__context__, MemoryError)
    assert len(str(refused.value).splitlines()) == 1
    assert capsys.readouterr().out == ""


# The number of weights


@pytest.mark.parametrize("name", [*RECIPES, *VARIANTS])
def test_the_number_of_weights_is_that_of_keras(name):
    """Oracle: the Keras model of the recipe, with narrow layers."""
    recipe = RECIPES[name] if name in RECIPES else vary(PAPER, name)
    narrow = replace(
        recipe,
        convs=tuple(replace(conv, filters=conv.filters // 8) for conv in recipe.convs),
        dense=tuple(replace(layer, units=16) for layer in recipe.dense),
    )
    assert build_alexnet(narrow, 7).count_params() == count_weights(narrow, 7)


def test_an_operation_may_follow_a_layer_several_times():
    """Oracle: the Keras model, whose layers must have different names."""
    ops = ("batch_norm", "relu", "batch_norm", "relu", "batch_norm", "relu")
    recipe = replace(TINY, convs=(replace(TINY.convs[0], post_ops=ops), *TINY.convs[1:]))
    model = build_alexnet(recipe, 7)
    assert model.count_params() == count_weights(recipe, 7)
    found = {variable.path: tuple(variable.shape) for variable in model.weights}
    assert found == weight_shapes(recipe, 7)
