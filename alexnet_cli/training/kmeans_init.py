"""Convolutions that start as what photographs are made of, in place of noise.

Krähenbühl, Doersch, Donahue and Darrell, "Data-dependent Initializations of Convolutional Neural
Networks", ICLR 2016, section 3: layer by layer, kernels become the centroids of whitened patches of
what the layer gets to see. Few photographs then need not teach conv1 what an edge is.
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
from alexnet_cli.system.workers import Progress
from alexnet_cli.training.batches import epoch_order
from alexnet_cli.training.devices import Devices

N_IMAGES, AT_ONCE = 256, 64
N_PATCHES = 20_000
ROUNDS = 15  # of k-means
# Of the principal components those that make up so much of the variance, and no more than so many;
# whitening damps what varies less than so much of their mean, which is mostly noise.
VARIANCE, COMPONENTS, DAMPING = 0.99, 200, 0.1
TINY = 1e-6


def initialize(
    network: KerasNetwork, store: ImageStore, seed: int, devices: Devices, progress: Progress
) -> None:
    """Replace the new kernels of all convolutions by centroids of patches of the images.

    Their responses to the patches vary as much as those of the random kernels, around the initial
    bias, so that σ and bias of the recipe keep their meaning. Of several workers the chief computes
    the kernels and sends them to the others, whose processors may round differently. `progress`
    gets (done, total) towers.
    """
    if devices.is_chief:
        _initialize_here(network, store, seed, progress)
    for variable in network.model.weights if devices.cluster else ():
        if variable.path.startswith("conv"):
            own = variable.numpy().astype(np.float64)
            variable.assign(devices.total(own if devices.is_chief else 0 * own))


def _initialize_here(
    network: KerasNetwork, store: ImageStore, seed: int, progress: Progress
) -> None:
    random = np.random.default_rng((seed, 0))
    chosen = (store.get(int(index)) for index in epoch_order(len(store), seed, 0)[:N_IMAGES])
    crop = Cropper(network.recipe, network.statistics)
    seen = np.concatenate([crop(image) for image in chosen if image is not None])
    convs = {k: v for k, v in network.recipe.layers().items() if isinstance(v, Conv)}
    done, total = 0, sum(conv.towers for conv in convs.values())
    progress(done, total)
    for layer in network.model.layers[1:]:  # one after the other, the input first
        if conv := convs.pop(layer.name, None):
            towers = getattr(layer, "towers", [layer])
            for tower, part in zip(towers, np.split(seen, len(towers), axis=-1)):
                patches = _patches(part, conv, random)
                kernel, bias = tower.get_weights()
                tower.set_weights(_kernels(patches, kernel, bias, random))
                progress(done := done + 1, total)
            if not convs:
                return
        seen = _forward(layer, seen)


def _forward(layer: Callable[[Float32Array], tf.Tensor], seen: Float32Array) -> Float32Array:
    parts = range(0, len(seen), AT_ONCE)
    outputs = (layer(seen[start : start + AT_ONCE]) for start in parts)
    return np.concatenate([tf.cast(output, tf.float32).numpy() for output in outputs])


def _kernels(
    patches: Float32Array, noise: Float32Array, bias: Float32Array, random: np.random.Generator
) -> tuple[Float32Array, Float32Array]:
    """Return kernels in place of `noise` (…, kernels), and biases that center their responses."""
    mean = patches.mean(axis=0)
    patches = patches - mean
    strength = (patches @ noise.reshape(len(mean), -1)).std()
    if strength < TINY:  # all patches are alike, and centroids of nothing would never learn
        return noise, bias
    whitener = whitening(patches)
    white = patches @ whitener
    white /= np.linalg.norm(white, axis=1, keepdims=True) + TINY
    kernels = whitener @ k_means(white, noise.shape[-1], random).T
    kernels *= strength / ((patches @ kernels).std(axis=0) + TINY)
    return kernels.reshape(noise.shape), bias - mean @ kernels


def _patches(seen: Float32Array, conv: Conv, random: np.random.Generator) -> Float32Array:
    """Draw `N_PATCHES` of what the kernels lie on: (patches, kernel · kernel · channels)."""
    edge = conv.kernel // 2 if conv.stride == 1 else 0  # which the network reads as zeros
    seen = np.pad(seen, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(seen, (conv.kernel, conv.kernel), (1, 2))
    windows = windows[:, :: conv.stride, :: conv.stride]
    where = tuple(random.integers(n, size=N_PATCHES) for n in windows.shape[:3])
    return windows[where].transpose(0, 2, 3, 1).reshape(N_PATCHES, -1)


def whitening(patches: Float32Array) -> Float32Array:
    """Return the (values, components) matrix by which centered patches get a variance near 1."""
    variances, axes = np.linalg.eigh(patches.T @ patches / len(patches))
    variances, axes = variances[::-1], axes[:, ::-1]  # the largest first
    enough = int(np.searchsorted(np.cumsum(variances), VARIANCE * variances.sum())) + 1
    n = min(enough, COMPONENTS)
    whitener: Float32Array = axes[:, :n] / np.sqrt(variances[:n] + DAMPING * variances[:n].mean())
    return whitener


def k_means(points: Float32Array, k: int, random: np.random.Generator) -> Float32Array:
    """Return `k` centroids (k, values) after `ROUNDS` of Lloyd's algorithm.

    One that no point is nearest to moves to a point at random.
    """
    centroids = points[random.integers(len(points), size=k)]
    for _ in range(ROUNDS):
        nearest = ((centroids**2).sum(axis=1) - 2 * points @ centroids.T).argmin(axis=1)
        order = np.argsort(nearest, kind="stable")
        used, starts = np.unique(nearest[order], return_index=True)
        counts = np.diff(starts, append=len(points))
        centroids = points[random.integers(len(points), size=k)]
        centroids[used] = np.add.reduceat(points[order], starts) / counts[:, None]
    return centroids
