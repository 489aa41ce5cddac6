"""Scores of a network during and after training: validation, dead units, final metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np
import numpy.typing as npt

from alexnet_cli.data.crops import Cropper
from alexnet_cli.data.images import Float32Array
from alexnet_cli.data.store import ImageStore
from alexnet_cli.network.classifier import Classifier
from alexnet_cli.network.crop_batches import group_crops
from alexnet_cli.network.keras_network import KerasNetwork
from alexnet_cli.recipes.hyperparameters import Dense
from alexnet_cli.runs import metrics
from alexnet_cli.runs.metrics import Score
from alexnet_cli.system.workers import Progress, map_in_order, skip_missing
from alexnet_cli.training.devices import Devices
from alexnet_cli.training.training_data import TrainingData

PROBED_IMAGES = 128  # validation images, in which dead units are counted


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
    store, y_true, n_classes = data.stores[split], data.y_true[split], len(data.manifest.classes)
    indices = devices.share(len(store))
    crop, kept = Cropper(network.recipe, network.statistics), list[int]()

    def load(index: int) -> Float32Array | None:
        return None if (image := store.get(index)) is None else crop(image)

    sums = np.zeros(4 + n_classes)
    crops = skip_missing(kept, indices, map_in_order(indices, load))
    for batch in group_crops(crops, len):
        probabilities = np.concatenate(network.probabilities(batch))
        sums[:4] += metrics.score_sums(y_true[kept], probabilities)
        kept.clear()
        sums[4:] += np.bincount(probabilities.argmax(axis=1), minlength=n_classes)
        if progress:
            progress(int(sums[0]), len(indices))
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


def dead_units(network: KerasNetwork, store: ImageStore) -> Mapping[str, float]:
    """Return for each layer with ReLU the share of units (channels) that are 0 for every image.

    Up to `PROBED_IMAGES` evenly spaced images of `store` are used.
    """
    crop = Cropper(network.recipe, network.statistics)
    chosen = np.unique(np.linspace(0, len(store) - 1, PROBED_IMAGES).round().astype(int))
    images = (store.get(int(index)) for index in chosen)
    return dead_units_in(network, [crop(image) for image in images if image is not None])


def dead_units_in(network: KerasNetwork, crops: Sequence[Float32Array]) -> dict[str, float]:
    """Return for each layer with ReLU the share of units that are 0 for all of `crops`.

    `crops`: float32, (1, size, size, 3) each, at least one.
    """
    relus = _relu_outputs(network)
    if not relus:
        return {}
    outputs = keras.Model(network.model.input, relus)(np.concatenate(crops), training=False)
    alive = {name: (x.numpy() > 0).any(tuple(range(x.ndim - 1))) for name, x in outputs.items()}
    return {name: float(1 - units.mean()) for name, units in alive.items()}


def _relu_outputs(network: KerasNetwork) -> dict[str, keras.KerasTensor]:
    hidden = network.recipe.layers().items()
    dense = {n for n, d in hidden if isinstance(d, Dense) and d.activation == "relu"}
    return {
        layer.name: layer.output
        for layer in network.model.layers
        if isinstance(layer, keras.layers.ReLU) or layer.name in dense
    }
