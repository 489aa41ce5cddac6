"""Scores of a network during and after training: validation, a training sample, final metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from alexnet_cli.data.crops import Cropper
from alexnet_cli.data.images import Float32Array
from alexnet_cli.network.classifier import Classifier
from alexnet_cli.network.crop_batches import group_crops
from alexnet_cli.network.keras_network import KerasNetwork
from alexnet_cli.recipes.hyperparameters import Dense
from alexnet_cli.runs import calibration, metrics
from alexnet_cli.runs.calibration import Calibration
from alexnet_cli.runs.metrics import Score
from alexnet_cli.system.workers import Progress, map_in_order, skip_missing
from alexnet_cli.training.devices import Devices
from alexnet_cli.training.training_data import TrainingData

SAMPLED_IMAGES = 128  # training images, whose loss is measured and in which dead units are counted


def _classify(
    network: Classifier, data: TrainingData, split: str, devices: Devices
) -> Iterator[tuple[npt.NDArray[np.integer], Float32Array]]:
    """Yield labels (n,) and probabilities (n, classes) of this worker's share of `split`, in batches."""
    store, y_true, indices = (
        data.stores[split],
        data.y_true[split],
        devices.share(len(data.stores[split])),
    )
    crop, kept = Cropper(network.recipe, network.statistics), list[int]()

    def load(index: int) -> Float32Array | None:
        return None if (image := store.get(index)) is None else crop(image)

    crops = skip_missing(kept, indices, map_in_order(indices, load))
    for batch in group_crops(crops, len):
        probabilities = np.concatenate(network.probabilities(batch))
        yield y_true[kept], probabilities
        kept.clear()


def _sums(
    network: Classifier,
    data: TrainingData,
    split: str,
    devices: Devices,
    progress: Progress | None = None,
) -> npt.NDArray[np.float64]:
    """Classify the center crops of `split`, each worker its share: the sums behind its scores.

    Returns those of `metrics.score_sums` and the number of images by predicted class, (4 + classes,).
    `progress` is called with (done, number of images) of this worker.
    """
    n_classes, n_images = len(data.manifest.classes), len(devices.share(len(data.stores[split])))
    sums = np.zeros(4 + n_classes)
    for y_true, probabilities in _classify(network, data, split, devices):
        sums[:4] += metrics.score_sums(y_true, probabilities)
        sums[4:] += np.bincount(probabilities.argmax(axis=1), minlength=n_classes)
        if progress:
            progress(int(sums[0]), n_images)
    return devices.total(sums)


def validate(
    network: Classifier, data: TrainingData, devices: Devices
) -> tuple[Score, npt.NDArray[np.int64]]:
    """Return the validation score and the number of images by predicted class, (classes,)."""
    sums = _sums(network, data, "val", devices)
    score = metrics.score_from_sums(sums[:4], len(data.manifest.classes))
    return score, sums[4:].astype(np.int64)


def score_all(
    network: Classifier, data: TrainingData, devices: Devices, progress: Progress
) -> dict[str, Score]:
    """Return the scores on all training and validation images, without augmentation or dropout."""
    sums = {split: _sums(network, data, split, devices, progress) for split in data.stores}
    n_classes = len(data.manifest.classes)
    return {split: metrics.score_from_sums(sums[split][:4], n_classes) for split in sums}


def calibrate(
    network: Classifier, data: TrainingData, devices: Devices, val: Score
) -> Calibration | None:
    """Fit the temperature of `network` on validation, whose score is `val`; None if that is too little."""
    if not (network.recipe.temperature_scaling and calibration.can_fit(val)):
        return None
    outputs = list(_classify(network, data, "val", devices))
    return calibration.fit_temperature(outputs, devices.total)


def score_sample(network: KerasNetwork, data: TrainingData) -> tuple[Score, dict[str, float]]:
    """Return the score on a sample of the training images, and the dead units by layer with ReLU.

    The score is measured as that of validation, without augmentation, dropout or label smoothing, so
    that their losses can be compared. The sample is the same in every epoch: evenly spaced images,
    as many as there are for validation but at most `SAMPLED_IMAGES`, which one pass classifies. See
    `probabilities_and_dead_units`.
    """
    crop, kept = Cropper(network.recipe, network.statistics), list[int]()
    n_images = min(SAMPLED_IMAGES, len(data.val))
    spaced = np.linspace(0, len(data.train) - 1, n_images).round().astype(int).tolist()
    chosen = list(dict.fromkeys(spaced))
    images = skip_missing(kept, chosen, map(data.train.get, chosen))
    probabilities, dead = probabilities_and_dead_units(network, [crop(image) for image in images])
    return metrics.score(data.y_true["train"][kept], probabilities), dead


def probabilities_and_dead_units(
    network: KerasNetwork, crops: Sequence[Float32Array]
) -> tuple[Float32Array, dict[str, float]]:
    """Return probabilities, float32 (n, classes), and the share of dead units by layer with ReLU.

    A unit (a channel of a convolution) is dead if it is 0 for all of `crops`: float32,
    (1, size, size, 3) each, at least one.
    """
    hidden = _relu_outputs(network)
    outputs = {**hidden, "logits": network.model.output}
    found = keras.Model(network.model.input, outputs)(np.concatenate(crops), training=False)
    alive = {
        name: (found[name].numpy() > 0).any(tuple(range(x.ndim - 1))) for name, x in hidden.items()
    }
    dead = {name: float(1 - units.mean()) for name, units in alive.items()}
    return tf.nn.softmax(found["logits"]).numpy(), dead


def _relu_outputs(network: KerasNetwork) -> dict[str, keras.KerasTensor]:
    hidden = network.recipe.layers().items()
    dense = {n for n, d in hidden if isinstance(d, Dense) and d.activation == "relu"}
    return {
        layer.name: layer.output
        for layer in network.model.layers
        if isinstance(layer, keras.layers.ReLU) or layer.name in dense
    }
