"""Helpers of several test modules: a tiny network, images that it can learn, and comparisons."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from alexnet_cli.data.manifest import MANIFEST
from alexnet_cli.errors import AlexNetError
from alexnet_cli.inference import prediction
from alexnet_cli.recipes import presets
from alexnet_cli.runs.models import load_model
from alexnet_cli.runs.run_folder import CONFIG, LAST, METRICS, STATISTICS
from alexnet_cli.runs.weights_file import load_arrays, read_notes, save_arrays

TESTS = Path(__file__).parent
HANG = 600  # seconds, many times what anything here takes on a busy machine: then it hangs

# The paper's network with every kind of layer, and every width and size as small as it can be.
_WIDTHS = (8, 12, 8, 8, 8)
TINY = replace(
    presets.PAPER,
    name="tiny",
    resize_size=72,
    crop_size=64,
    convs=tuple(replace(c, filters=w) for c, w in zip(presets.PAPER.convs, _WIDTHS)),
    dense=tuple(replace(d, units=16) for d in presets.PAPER.dense),
    batch_size=8,
    epochs=2,
)
# Wide enough draws for a network this narrow; the rest is the paper's.
QUICK = replace(
    TINY,
    convs=tuple(replace(conv, stddev=None) for conv in TINY.convs),
    dense=tuple(replace(layer, units=32, stddev=None, dropout=0.2) for layer in TINY.dense),
    output_stddev=None,
    color_noise=0.02,
    batch_size=4,
    epochs=4,
)
PLAIN = replace(  # compiles sooner
    QUICK,
    convs=tuple(replace(c, post_ops=("relu", "pool")) for c in (*QUICK.convs[:2], QUICK.convs[4])),
    learning_rate=3e-4,
    epochs=3,
)
COLORS = {"blue": (40, 60, 190), "green": (50, 170, 60), "red": (200, 50, 40)}


def paint(folder: Path, per_class: int, seed: int = 0) -> Path:
    """Make a folder of class folders of noisy single-color images, 80×90 pixels."""
    random = np.random.default_rng(seed)
    for name, color in COLORS.items():
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = np.array(color) + random.normal(0, 25, (80, 90, 3))
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(folder / name / f"{number}.png")
    return folder


def run(data, out, recipe=QUICK, **options):
    """Train on the CPU in float32; returns the folder, as `run`, and the final metrics of the run."""
    from alexnet_cli.api.runs import draw_curves
    from alexnet_cli.training import start_and_resume
    from alexnet_cli.training.devices import choose_devices

    devices = choose_devices(0, "float32")
    options = {"draw": draw_curves, **options}
    folder = start_and_resume.train(data, recipe=recipe, devices=devices, out=out, **options)
    return SimpleNamespace(run=folder.path, **vars(folder.metrics()))


def batch_of(images, targets):
    """A batch on one device, all of it on the one replica."""
    import tensorflow as tf

    from alexnet_cli.training.batches import Batch

    return Batch(images, targets, tf.range(len(images)), tf.zeros(2, tf.int32))


def evaluate(models, data=None, **options):
    """Evaluate the models at these paths."""
    from alexnet_cli.inference import evaluation

    return evaluation.evaluate([load_model(path) for path in models], data, **options)


def predict(paths, models, **options):
    """Predict the images of `paths` by the models at these paths: a list of outcomes."""
    loaded = [load_model(path) for path in models]
    return list(prediction.predict(loaded, prediction.list_images(paths), **options))


def assert_close(found, expected):
    """Assert that two states of a training are equal to float32 rounding in another order."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=2e-6, err_msg=name)


def assert_same_run(one: Path, two: Path):
    """Assert that the last checkpoints are equal bit for bit, and the histories except for timings."""
    a, b = load_arrays(one / LAST), load_arrays(two / LAST)
    notes = [read_notes(path / LAST) for path in (one, two)]
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    for note in notes:
        for row in note["history"]:
            del row["seconds"], row["images_per_second"]
    assert notes[0] == notes[1]


def set_temperature(run, temperature):
    """Give the best weights of a run a temperature, as if validation had asked for it."""
    metrics = json.loads((run / METRICS).read_text())
    metrics["calibration"] = {"temperature": temperature, "uncalibrated_loss": 1.0, "loss": 0.9}
    (run / METRICS).write_text(json.dumps(metrics))
    config = json.loads((run / CONFIG).read_text())
    config["recipe"]["temperature_scaling"] = True
    (run / CONFIG).write_text(json.dumps(config))
    sign(run)


def sign(run):
    """Compute the checksums of a run anew, as whoever sends it can, where its files allow it."""
    try:
        arrays, files = load_arrays(run / STATISTICS), [run / CONFIG, run / MANIFEST]
    except AlexNetError:
        return
    if all(path.is_file() and not path.is_symlink() for path in files):
        sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        save_arrays(run / STATISTICS, arrays, {"sha256": sums})
