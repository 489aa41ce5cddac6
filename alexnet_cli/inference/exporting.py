"""A trained network for other programs: pixels in, probabilities out, checked before it is called done."""

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

from alexnet_cli.data.manifest import ImageFile
from alexnet_cli.data.store import BadImageBudget, Float32Array, load_image
from alexnet_cli.errors import AlexNetError, UsageError
from alexnet_cli.inference.results import ExportReport
from alexnet_cli.network.keras_network import KerasNetwork
from alexnet_cli.network.layers import Center, LocalResponseNormalization
from alexnet_cli.runs.models import Member, load_member
from alexnet_cli.runs.run_folder import RunFolder
from alexnet_cli.system.safe_names import printable
from alexnet_cli.system.tensorflow_startup import quiet_stderr
from alexnet_cli.system.workers import map_in_order, skip_missing

FORMS = {"savedmodel": ("float32",), "onnx": ("float32",), "litert": ("float32", "float16", "int8")}
_SUFFIXES = {"savedmodel": "", "onnx": ".onnx", "litert": ".tflite"}
_EXTRA = "assets.extra"  # a folder that loaders of a SavedModel leave alone

CHECKED = 400  # photographs
_APART = {"float32": 1e-4, "float16": 0.02}  # what probabilities may differ by; int8 may do more
_SAME = 0.9  # share of the photographs that must keep their class

Run = Callable[
    [Float32Array], Float32Array
]  # pixels (1, size, size, 3) → probabilities (1, classes)


def export(
    model: Path | None,
    kind: str,
    out: Path | None = None,
    *,
    form: str = "float32",
    license: str = "not stated",
    force: bool = False,
) -> ExportReport:
    """Write a run as `kind`, one of `FORMS`, with the weights in `form`.

    The exported network takes float32 (batch, crop_size, crop_size, 3), RGB, 0–255: the center crop as
    the run prepares it, from which it subtracts the mean itself. It is tried on up to `CHECKED` of the
    run's validation photographs, and only then takes its place. Raises `AlexNetError` if it answers
    otherwise than the run.
    """
    if form not in FORMS[kind]:
        raise UsageError(f"--form {form}: {kind} is written as {', '.join(FORMS[kind])}")
    if out and not out.parent.is_dir():
        raise UsageError(f"{out}: there is no folder {out.parent}")
    member = load_member(model or RunFolder.find(None).path)
    if member.trained_on is None:
        raise AlexNetError(f"{member.path}: has no photographs to check an export on; give a run")
    name = kind if form == "float32" else f"{kind}-{form}"
    out = out or member.path / f"{name}{_SUFFIXES[kind]}"
    if out.is_symlink() or (out.exists() and not (out.is_file() or out.is_dir())):
        raise AlexNetError(f"{out}: is a link or a device; choose another --out")
    if out.exists() and not force:
        raise AlexNetError(f"{out}: exists; --force replaces it")
    if (
        out.is_dir() and not (out / _EXTRA / "model_card.json").is_file()
    ):  # which --force would delete
        raise AlexNetError(f"{out}: is a folder, and no export of ours; choose another --out")
    chosen = _spread(member.trained_on.of("val"), CHECKED)
    whole = _with_pixels(member.network)
    config = {
        "classes": member.classes,
        "license": license,
        "input": "float32 RGB, 0-255, center crop",
        "recipe": member.network.recipe.name,
        "form": form,
    }
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        made = Path(folder, f"model{_SUFFIXES[kind]}")
        with quiet_stderr():
            run = _WRITERS[kind](whole, made, form, config)
        report = _compare(run, member, chosen, out, form)
        if out.is_dir():
            shutil.rmtree(out)
        elif made.is_dir():
            out.unlink(missing_ok=True)
        os.replace(made, out)
    return report


def _with_pixels(network: KerasNetwork) -> keras.Model:
    """Put the subtraction of the center's mean in front and the softmax behind."""
    recipe, size = network.recipe, network.recipe.crop_size
    for layer in network.model.layers:
        if isinstance(layer, LocalResponseNormalization):
            layer.fused = False  # other programs know no XLA
    centered = Center(network.cropper().center_mean(), recipe.scale)
    pixels = keras.Input((size, size, 3), name="pixels")
    probabilities = keras.layers.Softmax(name="probabilities")(network.model(centered(pixels)))
    whole = keras.Model(pixels, probabilities)
    whole(np.zeros((1, size, size, 3), np.float32))
    return whole


def _write_savedmodel(whole: keras.Model, path: Path, form: str, config: dict[str, Any]) -> Run:
    whole.export(path, format="tf_saved_model", verbose=False)
    extra = path / _EXTRA
    extra.mkdir()
    for name, text in _texts(config).items():
        (extra / name).write_text(text, encoding="utf-8")
    loaded = tf.saved_model.load(path)
    return lambda pixels: loaded.serve(tf.constant(pixels)).numpy()


def _write_onnx(whole: keras.Model, path: Path, form: str, config: dict[str, Any]) -> Run:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise AlexNetError(
            f"--format onnx: needs {error.name}: `pip install '.[onnx]'` in a clone brings it"
        ) from None
    whole.export(path, format="onnx", verbose=False)
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {**_texts(config), "license": config["license"]})
    onnx.save(proto, path)
    session = onnxruntime.InferenceSession(path)
    return lambda pixels: session.run(None, {"pixels": pixels})[0]


def _write_litert(whole: keras.Model, path: Path, form: str, config: dict[str, Any]) -> Run:
    # As Keras' own exporter to LiteRT does it, which Keras 3.12, the last for Python 3.10, lacks.
    saved = str(path.with_name("saved"))
    whole.export(saved, format="tf_saved_model", verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(saved)
    if form != "float32":  # without a choice of types, weights become 8 bits wide
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if form == "float16":
        converter.target_spec.supported_types = [tf.float16]
    path.write_bytes(converter.convert())
    with zipfile.ZipFile(path, "a") as archive:  # behind the network, as is usual for such files
        for name, text in _texts(config).items():
            archive.writestr(name, text)
    interpreter = _interpreter(path)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(pixels: Float32Array) -> Float32Array:
        interpreter.set_tensor(taken["index"], pixels)
        interpreter.invoke()
        return interpreter.get_tensor(given["index"])

    return run


def _interpreter(path: Path) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is about to move there
            return tf.lite.Interpreter(str(path))
    return Interpreter(str(path))


_WRITERS = {"savedmodel": _write_savedmodel, "onnx": _write_onnx, "litert": _write_litert}


def _texts(config: dict[str, Any]) -> dict[str, str]:
    return {
        "labels.txt": "".join(f"{printable(name)}\n" for name in config["classes"]),
        "model_card.json": json.dumps(config),
    }


def _compare(
    run: Run, member: Member, files: Sequence[ImageFile], out: Path, form: str
) -> ExportReport:
    """Hold an export against its run, photograph by photograph."""
    network, recipe = member.network, member.network.recipe
    crop, margin = network.cropper(), (recipe.resize_size - recipe.crop_size) // 2
    middle = slice(margin, margin + recipe.crop_size)
    left_out, kept = BadImageBudget(len(files)), list[ImageFile]()
    images = map_in_order(files, left_out.spare(lambda file: load_image(file, recipe)))
    ours, theirs = [], []
    for image in skip_missing(kept, files, images):
        ours.append(network.run([crop(image)])[0][0])
        theirs.append(run(image[None, middle, middle].astype(np.float32))[0])
    expected, found = np.stack(ours), np.stack(theirs)
    y_true = np.array([member.classes.index(file.label) for file in kept])
    apart = float(np.abs(expected - found).max())
    same = int((expected.argmax(axis=1) == found.argmax(axis=1)).sum())
    if not apart <= _APART.get(form, np.inf) or same < _SAME * len(kept):
        raise AlexNetError(
            f"{out}: not written, as the export answers otherwise than {member.path}: probabilities "
            f"differ by up to {apart:.2g}, and {len(kept) - same} of {len(kept)} classes"
        )
    tops = [float((scores.argmax(axis=1) == y_true).mean()) for scores in (expected, found)]
    return ExportReport(out, len(kept), apart, same, *tops)


def _spread(files: Sequence[ImageFile], count: int) -> Sequence[ImageFile]:
    """Take `count` of `files` at equal distances, so that all classes have their turn."""
    count = min(count, len(files))
    return [files[index * len(files) // count] for index in range(count)]
