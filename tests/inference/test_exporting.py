"""Exports: other programs, without this package, give the predictions of the run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import QUICK, predict, run, set_temperature

from alexnet_cli.errors import AlexNetError, UsageError
from alexnet_cli.inference import exporting
from alexnet_cli.network import layers
from alexnet_cli.runs.models import load_model

BLOCKS = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs" / "run-folder.md").read_text(), re.S
)
_WEIGHTS, PREPARE, *READERS = BLOCKS
LOADERS = dict(zip(("litert", "savedmodel", "onnx"), READERS))
FILES = {"litert": "litert.tflite", "savedmodel": "savedmodel", "onnx": "onnx.onnx"}


@pytest.fixture(scope="module")
def wide(image_folder, tmp_path_factory):
    """A run whose dense layers hold most weights, as usual; two hyperparameters are unusual.

    Its temperature is far from 1, so that an export without it differs.
    """
    dense = tuple(replace(layer, units=512) for layer in QUICK.dense)
    recipe = replace(QUICK, epochs=2, scale=0.5, stretch=True, dense=dense)
    path = run(image_folder, tmp_path_factory.mktemp("runs"), recipe).run
    set_temperature(path, 2.5)
    return path


def load_elsewhere(kind, path, image):
    """Run the code of docs/run-folder.md in a process without this package, with these sizes."""
    code = PREPARE + LOADERS[kind]
    for written, meant in (
        ('"rose.jpg"', repr(str(image))),
        (f'"{FILES[kind]}"', repr(str(path))),
        ("(256, 256)", "(72, 72)"),
        ("16:240, 16:240", "4:68, 4:68"),
    ):
        assert written in code
        code = code.replace(written, meant)
    code = code.replace(
        "from ai_edge_litert.interpreter import", "from tensorflow.lite.python.interpreter import"
    )
    code += """
import sys
assert not any(name.startswith("alexnet") for name in sys.modules)
print(*probabilities[0])
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return np.array(done.stdout.split(), np.float32)


@pytest.mark.filterwarnings("ignore:In the future `np.object`:FutureWarning")  # tf2onnx uses it
@pytest.mark.parametrize("kind", exporting.FORMATS)
def test_an_export_gives_the_predictions_of_the_run(wide, image_folder, tmp_path, kind):
    """Oracle: `predict` on the same image; the classes are in the order of labels.txt."""
    if kind == "onnx":
        for module in ("onnx", "tf2onnx", "onnxruntime"):
            pytest.importorskip(module)
    out = tmp_path / "exported"
    report = exporting.export(load_model(wide), kind, out, license="CC BY 4.0")
    assert (report.path, report.n_images, report.n_same) == (out, 3, 3)
    assert report.largest_difference < 1e-4
    assert report.top1 == report.top1_exported
    image = image_folder / "green" / "3.png"
    (ours,) = predict([image], [wide])
    theirs = load_elsewhere(kind, out, image)
    expected = [ours.probabilities[ours.classes.index(name)] for name in ("blue", "green", "red")]
    np.testing.assert_allclose(theirs, expected, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]


def read_texts(kind, path):
    names = ("labels.txt", "model_card.json")
    if kind == "savedmodel":
        return [(path / "assets.extra" / name).read_text() for name in names]
    with zipfile.ZipFile(path) as archive:
        return [archive.read(name).decode() for name in names]


@pytest.mark.parametrize("kind", ["savedmodel", "litert"])
def test_an_export_contains_classes_and_license(wide, tmp_path, kind):
    exporting.export(load_model(wide), kind, tmp_path / "exported", license="for my class only")
    labels, config = read_texts(kind, tmp_path / "exported")
    assert labels.splitlines() == ["blue", "green", "red"]
    assert json.loads(config)["license"] == "for my class only"
    assert json.loads(config)["classes"] == ["blue", "green", "red"]


@pytest.mark.parametrize(("form", "size"), [("float16", 0.56), ("int8", 0.4)])
def test_quantized_exports_are_smaller_and_nearly_the_same(wide, tmp_path, form, size):
    """Oracle: 2 or 1 bytes per weight instead of 4, plus the rest of the file; the same classes."""
    whole = exporting.export(load_model(wide), "litert", tmp_path / "whole")
    report = exporting.export(load_model(wide), "litert", tmp_path / "small", quantize=form)
    assert report.path.stat().st_size < size * whole.path.stat().st_size
    assert 0 < report.largest_difference < 0.05
    assert report.n_same == 3


def test_an_export_with_other_predictions_is_discarded(wide, tmp_path, monkeypatch):
    """Oracle: a mean that is wrong by a tenth of the range; only the earlier export is left."""
    exporting.export(load_model(wide), "litert", tmp_path / "exported")
    before = (tmp_path / "exported").read_bytes()
    right = exporting.Center
    monkeypatch.setattr(exporting, "Center", lambda mean, scale: right(mean + 25, scale))
    with pytest.raises(AlexNetError, match=r"exported: discarded, as its predictions differ"):
        exporting.export(load_model(wide), "litert", tmp_path / "exported", force=True)
    assert (tmp_path / "exported").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]


def test_the_comparison_uses_the_network_of_the_run_not_the_exported_one(
    wide, tmp_path, monkeypatch
):
    """Oracle: a response normalization that is wrong only where an export has it, not where a run has.

    An export replaces the fused operation by one without XLA; compared with the replaced network,
    it would agree with itself.
    """
    right = layers._plain_lrn  # the fused one was compiled from it before
    monkeypatch.setattr(layers, "_plain_lrn", lambda a, k, *rest: right(a, k + 1, *rest))
    model = load_model(wide)
    with pytest.raises(AlexNetError, match="discarded, as its predictions differ"):
        exporting.export(model, "savedmodel", tmp_path / "exported")
    norm = layers.LocalResponseNormalization
    norms = [layer for layer in model.keras_network.model.layers if isinstance(layer, norm)]
    assert len(norms) == 2
    assert all(layer.fused for layer in norms)  # the model can go on to predict


@pytest.mark.parametrize("kind", ["savedmodel", "litert"])
def test_force_replaces_exports_but_no_other_folder(wide, tmp_path, kind):
    """Oracle: a file of the user, which is kept; the license of the new export."""
    mine = tmp_path / "folder" / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(AlexNetError, match="folder: is a folder, but not an export; choose"):
        exporting.export(load_model(wide), kind, mine.parent, force=True)
    assert mine.read_text() == "mine"
    exporting.export(load_model(wide), "savedmodel", tmp_path / "earlier", license="old")
    exporting.export(load_model(wide), kind, tmp_path / "earlier", license="new", force=True)
    assert json.loads(read_texts(kind, tmp_path / "earlier")[1])["license"] == "new"


def test_force_replaces_a_file_by_a_folder_but_follows_no_link(wide, tmp_path):
    """Oracle: the type of the new export, and the unchanged target of the link."""
    (tmp_path / "earlier").write_text("an ONNX file, say")
    exporting.export(load_model(wide), "savedmodel", tmp_path / "earlier", force=True)
    assert (tmp_path / "earlier" / "saved_model.pb").is_file()
    (tmp_path / "link").symlink_to("earlier")
    with pytest.raises(AlexNetError, match="link: is a link or a device; choose another --out"):
        exporting.export(load_model(wide), "litert", tmp_path / "link", force=True)
    assert (tmp_path / "earlier" / "saved_model.pb").is_file()


def test_invalid_arguments_get_one_line(wide, tmp_path):
    with pytest.raises(UsageError, match="quantize='int8': only litert can be quantized"):
        exporting.export(load_model(wide), "savedmodel", tmp_path / "x", quantize="int8")
    (tmp_path / "x").write_text("mine")
    with pytest.raises(AlexNetError, match="x: exists; replace it with --force"):
        exporting.export(load_model(wide), "litert", tmp_path / "x")
    assert (tmp_path / "x").read_text() == "mine"


@pytest.mark.filterwarnings("ignore:In the future `np.object`:FutureWarning")  # tf2onnx uses it
@pytest.mark.parametrize(("kind", "step"), [("onnx", "tanh"), ("litert", "batch_norm")])
def test_variants_of_the_network_can_be_exported(image_folder, tmp_path, kind, step):
    """Oracle: the probabilities of the run, up to the rounding of float32."""
    if kind == "onnx":
        for module in ("onnx", "tf2onnx", "onnxruntime"):
            pytest.importorskip(module)
    steps = {"relu": ("tanh",)} if step == "tanh" else {"lrn": (), "relu": ("relu", step)}
    convs = tuple(
        replace(conv, post_ops=tuple(s for old in conv.post_ops for s in steps.get(old, (old,))))
        for conv in QUICK.convs
    )
    other = run(image_folder, tmp_path / "runs", replace(QUICK, epochs=1, convs=convs)).run
    report = exporting.export(load_model(other), kind, tmp_path / "exported")
    assert report.largest_difference < 1e-5
