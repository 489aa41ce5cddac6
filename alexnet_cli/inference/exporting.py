"""Export a trained network for other programs, from pixels to probabilities, and check it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from alexnet_cli.data.crops import Cropper
from alexnet_cli.data.images import Float32Array
from alexnet_cli.data.manifest import MANIFEST, ImageFile, evenly_spaced
from alexnet_cli.data.store import BadImageBudget, load_image
from alexnet_cli.errors import AlexNetError, UsageError
from alexnet_cli.inference.results import ExportReport
from alexnet_cli.network.keras_network import KerasNetwork
from alexnet_cli.network.layers import Center, LocalResponseNormalization
from alexnet_cli.runs.models import LoadedModel
from alexnet_cli.system.safe_names import printable
from alexnet_cli.system.tensorflow_startup import quiet_stderr
from alexnet_cli.system.workers import map_in_order, skip_missing

QUANTIZED = ("float16", "int8")  # precisions of LiteRT weights; everything else is float32
_SUFFIXES = {"savedmodel": "", "onnx": ".onnx", "litert": ".tflite"}
_EXTRA = "assets.extra"  # a folder that loaders of a SavedModel ignore
_CARD, _LABELS = "model_card.json", "labels.txt"

MAX_IMAGES = 400  # validation images
# The largest difference of a probability, by `quantize`; int8 has no limit.
_MAX_DIFFERENCE = {None: 1e-4, "float16": 0.02}
_MIN_SAME = 0.9  # minimum share of images with the same predicted class

# (1, size, size, 3) → probabilities (1, classes).
Predictor = Callable[[Float32Array], Float32Array]


def export(
    model: LoadedModel,
    format: str = "litert",
    out: Path | None = None,
    *,
    quantize: str | None = None,
    license: str = "not stated",
    force: bool = False,
) -> ExportReport:
    """Write the network of a run as `format`: "litert", "onnx" or "savedmodel".

    The exported network takes center crops, float32 (batch, crop_size, crop_size, 3), RGB, 0–255.
    It subtracts the mean and returns probabilities. `quantize`, "float16" or "int8", reduces the size
    of LiteRT weights. `out` is by default in the run folder; `force` replaces an earlier export. The
    export is compared with the run on up to `MAX_IMAGES` validation images; if its predictions
    differ, it is discarded and `AlexNetError` is raised.
    """
    _check_arguments(model, format, quantize, out)
    name = format if quantize is None else f"{format}-{quantize}"
    out = out or model.path / f"{name}{_SUFFIXES[format]}"
    _check_target(out, force)
    assert model.run is not None  # checked above
    images = evenly_spaced(model.run.images().of("val"), MAX_IMAGES)
    if not images:
        raise AlexNetError(
            f"{model.path / MANIFEST}: lists no validation images to check an export with"
        )
    card = {
        "classes": model.classes,
        "license": license,
        "input": "float32 RGB, 0-255, center crop",
        "recipe": model.recipe.name,
        "weights": quantize or "float32",
    }
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        written = Path(folder, f"model{_SUFFIXES[format]}")
        with quiet_stderr():
            run = _WRITERS[format](_add_preprocessing(model), written, quantize, card)
        report = _compare(run, model, images, out, quantize)
        if out.is_dir():
            shutil.rmtree(out)
        elif written.is_dir():
            out.unlink(missing_ok=True)
        os.replace(written, out)
    return report


def _check_arguments(
    model: LoadedModel, format: str, quantize: str | None, out: Path | None
) -> None:
    if format not in FORMATS:
        raise UsageError(f"choose from {', '.join(FORMATS)}", argument="format", value=format)
    if quantize is not None and quantize not in QUANTIZED:
        raise UsageError(f"choose from {', '.join(QUANTIZED)}", argument="quantize", value=quantize)
    if quantize and format != "litert":
        reason = f"only litert can be quantized, not {format}"
        raise UsageError(reason, argument="quantize", value=quantize)
    if out and not out.parent.is_dir():
        raise UsageError(f"folder {out.parent} not found", argument="out", value=str(out))
    if model.run is None:
        raise AlexNetError(
            f"{model.path}: has no images to check an export with. Export a run instead"
        )


def _check_target(out: Path, force: bool) -> None:
    if out.is_symlink() or (out.exists() and not (out.is_file() or out.is_dir())):
        raise AlexNetError(f"{out}: is a link or a device; choose another --out")
    if out.exists() and not force:
        raise AlexNetError(f"{out}: exists; replace it with --force")
    if out.is_dir() and not (out / _EXTRA / _CARD).is_file():  # --force would delete it
        raise AlexNetError(f"{out}: is a folder, but not an export; choose another --out")


def _add_preprocessing(model: LoadedModel) -> keras.Model:
    """Return the network with a first layer that subtracts the mean and a softmax at the end."""
    recipe, size = model.recipe, model.recipe.crop_size
    network = KerasNetwork.from_arrays(recipe, len(model.classes), model.weights, model.statistics)
    for layer in network.model.layers:
        if isinstance(layer, LocalResponseNormalization):
            layer.fused = False  # other programs do not have XLA
    mean = Cropper(recipe, model.statistics).center_mean()
    pixels = keras.Input((size, size, 3), name="pixels")
    logits = network.model(Center(mean, recipe.scale)(pixels))
    model_of_pixels = keras.Model(pixels, keras.layers.Softmax(name="probabilities")(logits))
    model_of_pixels(np.zeros((1, size, size, 3), np.float32))
    return model_of_pixels


def _write_savedmodel(
    network: keras.Model, path: Path, quantize: str | None, card: dict[str, Any]
) -> Predictor:
    network.export(path, format="tf_saved_model", verbose=False)
    extra = path / _EXTRA
    extra.mkdir()
    for name, text in _metadata_files(card).items():
        (extra / name).write_text(text, encoding="utf-8")
    loaded = tf.saved_model.load(path)
    return lambda pixels: loaded.serve(tf.constant(pixels)).numpy()


def _write_onnx(
    network: keras.Model, path: Path, quantize: str | None, card: dict[str, Any]
) -> Predictor:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise AlexNetError(
            f"needs {error.name}; install it, in the clone of alexnet, with: pip install '.[onnx]'",
            argument="format",
            value="onnx",
        ) from None
    network.export(path, format="onnx", verbose=False)
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {**_metadata_files(card), "license": card["license"]})
    onnx.save(proto, path)
    session = onnxruntime.InferenceSession(path)
    return lambda pixels: session.run(None, {"pixels": pixels})[0]


def _write_litert(
    network: keras.Model, path: Path, quantize: str | None, card: dict[str, Any]
) -> Predictor:
    # Like the LiteRT exporter of Keras, which can't quantize.
    saved = str(path.with_name("saved"))
    network.export(saved, format="tf_saved_model", verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(saved)
    if quantize:  # without supported_types, weights become int8
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    path.write_bytes(converter.convert())
    with zipfile.ZipFile(path, "a") as archive:  # appended, as is the convention for such files
        for name, text in _metadata_files(card).items():
            archive.writestr(name, text)
    interpreter = _interpreter(path)
    interpreter.allocate_tensors()
    (inputs,), (outputs,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(pixels: Float32Array) -> Float32Array:
        interpreter.set_tensor(inputs["index"], pixels)
        interpreter.invoke()
        return interpreter.get_tensor(outputs["index"])

    return run


def _interpreter(path: Path) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the warning that it moves to ai_edge_litert
            return tf.lite.Interpreter(str(path))
    return Interpreter(str(path))


_WRITERS = {"savedmodel": _write_savedmodel, "onnx": _write_onnx, "litert": _write_litert}
FORMATS = tuple(_WRITERS)


def _metadata_files(card: dict[str, Any]) -> dict[str, str]:
    """Return the texts of the metadata files by file name."""
    labels = "".join(f"{printable(name)}\n" for name in card["classes"])
    return {_LABELS: labels, _CARD: json.dumps(card)}


def _compare(
    predict: Predictor,
    model: LoadedModel,
    files: Sequence[ImageFile],
    out: Path,
    quantize: str | None,
) -> ExportReport:
    """Compare the predictions of an export and its model; raises `AlexNetError` if they differ."""
    network, recipe = model.keras_network, model.recipe
    crop = Cropper(recipe, model.statistics)
    margin = (recipe.resize_size - recipe.crop_size) // 2
    middle = slice(margin, margin + recipe.crop_size)
    budget, kept = BadImageBudget(len(files)), list[ImageFile]()
    images = map_in_order(files, budget.tolerate(lambda file: load_image(file, recipe)))
    ours, theirs = [], []
    for image in skip_missing(kept, files, images):
        ours.append(network.probabilities([crop(image)])[0][0])
        theirs.append(predict(image[None, middle, middle].astype(np.float32))[0])
    expected, found = np.stack(ours), np.stack(theirs)
    y_true = np.array([model.classes.index(file.label) for file in kept])
    difference = float(np.abs(expected - found).max())
    n_same = int((expected.argmax(axis=1) == found.argmax(axis=1)).sum())
    most = _MAX_DIFFERENCE.get(quantize, np.inf)
    if not difference <= most or n_same < _MIN_SAME * len(kept):
        raise AlexNetError(
            f"{out}: discarded, as its predictions differ from those of {model.path}: "
            f"probabilities by up to {difference:.2g}, {len(kept) - n_same} of {len(kept)} classes"
        )
    top1, top1_exported = (
        float((scores.argmax(axis=1) == y_true).mean()) for scores in (expected, found)
    )
    return ExportReport(out, len(kept), difference, n_same, top1, top1_exported)
