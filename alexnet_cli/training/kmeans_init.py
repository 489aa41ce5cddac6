"""Initialize convolutions with k-means centroids of image patches instead of random kernels.

Krähenbühl, Doersch, Donahue and Darrell, "Data-dependent Initializations of Convolutional Neural
Networks", ICLR 2016, section 3: layer by layer, kernels become the centroids of whitened patches of
the layer's input. A small data set then does not have to teach conv1 to detect edges.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from alexnet_cli.data.crops import Cropper
from alexnet_cli.data.images import Float32Array
from alexnet_cli.data.store import ImageStore
from alexnet_cli.network.keras_network import KerasNetwork
from alexnet_cli.recipes.hyperparameters import Conv
from alexnet_cli.system.random_streams import random_stream
from alexnet_cli.system.workers import Progress
from alexnet_cli.training.batches import epoch_order
from alexnet_cli.training.devices import Devices

N_IMAGES, BATCH_IMAGES = 256, 64
N_PATCHES = 20_000
ITERATIONS = 15  # of k-means
# Whitening keeps the principal components with this share of the variance, at most this many, and
# damps those whose variance is below this fraction of the mean variance, which are mostly noise.
VARIANCE, COMPONENTS, DAMPING = 0.99, 200, 0.1
EPSILON = 1e-6


def initialize(
    network: KerasNetwork, store: ImageStore, seed: int, devices: Devices, progress: Progress
) -> None:
    """Replace the random kernels of all convolutions by centroids of patches of the images.

    The responses of the new kernels to the patches are centered on the initial bias and have the
    standard deviation of the responses of the random kernels, so that σ and bias of the recipe keep
    their meaning. With several workers, the chief computes the kernels and sends them to the
    others, whose processors may round differently. `progress` is called with (done, total) towers.
    """
    if devices.is_chief:
        _compute_kernels(network, store, seed, progress)
    for variable in network.model.weights if devices.cluster else ():
        if variable.path.startswith("conv"):
            variable.assign(devices.from_chief(variable.numpy()))


def _compute_kernels(
    network: KerasNetwork, store: ImageStore, seed: int, progress: Progress
) -> None:
    random = random_stream(seed, "k-means")
    chosen = (store.get(int(index)) for index in epoch_order(len(store), seed, 0)[:N_IMAGES])
    crop = Cropper(network.recipe, network.statistics)
    inputs = np.concatenate([crop(image) for image in chosen if image is not None])
    convs = {k: v for k, v in network.recipe.layers().items() if isinstance(v, Conv)}
    done, total = 0, sum(conv.towers for conv in convs.values())
    progress(done, total)
    for layer in network.model.layers[1:]:  # in order, as inputs depend on the kernels before
        if conv := convs.pop(layer.name, None):
            towers = getattr(layer, "towers", [layer])
            for tower, part in zip(towers, np.split(inputs, len(towers), axis=-1)):
                patches = _patches(part, conv, random)
                kernel, bias = tower.get_weights()
                tower.set_weights(_kernels(patches, kernel, bias, random))
                progress(done := done + 1, total)
            if not convs:
                return
        inputs = _forward(layer, inputs)


def _forward(layer: Callable[[Float32Array], tf.Tensor], inputs: Float32Array) -> Float32Array:
    parts = range(0, len(inputs), BATCH_IMAGES)
    outputs = (layer(inputs[start : start + BATCH_IMAGES]) for start in parts)
    return np.concatenate([tf.cast(output, tf.float32).numpy() for output in outputs])


def _kernels(
    patches: Float32Array,
    random_kernels: Float32Array,
    bias: Float32Array,
    random: np.random.Generator,
) -> tuple[Float32Array, Float32Array]:
    """Return kernels of the shape of `random_kernels`, and biases that center their responses."""
    mean = patches.mean(axis=0)
    patches = patches - mean
    spread = (patches @ random_kernels.reshape(len(mean), -1)).std()
    if spread < EPSILON:  # all patches are equal: zero kernels would never learn
        return random_kernels, bias
    whitener = whitening(patches)
    white = patches @ whitener
    white /= np.linalg.norm(white, axis=1, keepdims=True) + EPSILON
    kernels = whitener @ k_means(white, random_kernels.shape[-1], random).T
    kernels *= spread / ((patches @ kernels).std(axis=0) + EPSILON)
    return kernels.reshape(random_kernels.shape), bias - mean @ kernels


def _patches(inputs: Float32Array, conv: Conv, random: np.random.Generator) -> Float32Array:
    """Return `N_PATCHES` random patches of the inputs: (patches, kernel · kernel · channels)."""
    padding = conv.kernel // 2 if conv.stride == 1 else 0  # the network pads with zeros
    inputs = np.pad(inputs, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(inputs, (conv.kernel, conv.kernel), (1, 2))
    windows = windows[:, :: conv.stride, :: conv.stride]
    where = tuple(random.integers(n, size=N_PATCHES) for n in windows.shape[:3])
    return windows[where].transpose(0, 2, 3, 1).reshape(N_PATCHES, -1)


def whitening(patches: Float32Array) -> Float32Array:
    """Return the matrix (values, components) that whitens centered patches to a variance near 1."""
    variances, axes = np.linalg.eigh(patches.T @ patches / len(patches))
    variances, axes = variances[::-1], axes[:, ::-1]  # the largest first
    enough = int(np.searchsorted(np.cumsum(variances), VARIANCE * variances.sum())) + 1
    n = min(enough, COMPONENTS)
    whitener: Float32Array = axes[:, :n] / np.sqrt(variances[:n] + DAMPING * variances[:n].mean())
    return whitener


def k_means(points: Float32Array, k: int, random: np.random.Generator) -> Float32Array:
    """Return `k` centroids (k, values) after `ITERATIONS` of Lloyd's algorithm.

    A centroid without points is replaced by a random point.
    """
    centroids = points[random.integers(len(points), size=k)]
    for _ in range(ITERATIONS):
        nearest = ((centroids**2).sum(axis=1) - 2 * points @ centroids.T).argmin(axis=1)
        order = np.argsort(nearest, kind="stable")
        used, starts = np.unique(nearest[order], return_index=True)
        counts = np.diff(starts, append=len(points))
        centroids = points[random.integers(len(points), size=k)]
        centroids[used] = np.add.reduceat(points[order], starts) / counts[:, None]
    return centroids
