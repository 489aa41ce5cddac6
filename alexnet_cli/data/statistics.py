"""Statistics of the training images: the mean image and the covariance of the RGB values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from alexnet_cli.data.images import Float32Array, UInt8Array
from alexnet_cli.data.store import ImageStore
from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.system.workers import Progress, map_in_order

SAMPLE = 20_000  # images; of more, an evenly spaced sample is measured

_Sums = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Statistics:
    """Mean image and RGB covariance of the training images, for pixel values 0 to 255."""

    mean_image: Float32Array  # (resize_size, resize_size, 3): the mean of each pixel
    covariance: npt.NDArray[np.float64]  # (3, 3): of R, G and B over all pixels

    def with_mean(self, other: Statistics) -> Statistics:
        """Return these with the mean image of `other`, or with its mean color if it has another size."""
        mean_image = other.mean_image
        if mean_image.shape != self.mean_image.shape:
            color = mean_image.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
            mean_image = np.broadcast_to(color, self.mean_image.shape)
        return replace(self, mean_image=mean_image)

    def mean(self, recipe: Recipe) -> Float32Array:
        """Return the mean that `recipe` subtracts, float32 (resize_size, resize_size, 3).

        The mean image ("image", "center"; section 2), the mean of each channel, or zeros ("none").
        """
        if recipe.mean == "channel":
            channels = self.mean_image.mean(axis=(0, 1), dtype=np.float64)
            return np.broadcast_to(channels.astype(np.float32), self.mean_image.shape)
        if recipe.mean in ("image", "center"):
            return self.mean_image
        return np.zeros_like(self.mean_image)

    def color_axes(self) -> npt.NDArray[np.float64]:
        """Return the (3, 3) matrix with columns p_i · √λ_i, the scaled principal components.

        λ_i and p_i are the eigenvalues and eigenvectors of the covariance (section 4.1).
        """
        eigenvalues, eigenvectors = np.linalg.eigh(self.covariance)
        axes: npt.NDArray[np.float64] = eigenvectors * np.sqrt(np.maximum(eigenvalues, 0))
        return axes


def compute_statistics(
    store: ImageStore,
    progress: Progress | None = None,
    share: Callable[[int], range] = range,
    add_up: Callable[[_Sums], _Sums] = lambda sums: sums,
) -> Statistics:
    """Compute the statistics of the images of `store`, or of a sample of about `SAMPLE` of them.

    Several hosts compute them together: `share` returns, for a number of images, the indices that
    this host measures, and `add_up` returns the sum of an array over all hosts. All sums are whole
    numbers, so that every division of the work gives the same bits. Bad images are skipped.
    """
    sample = range(0, len(store), -(-len(store) // SAMPLE))
    own = [sample[number] for number in share(len(sample))]
    size = store.recipe.resize_size
    # One array, so that it is added up at once: the sum of all images, the products, the count.
    sums: _Sums = np.zeros(size * size * 3 + 9 + 1)
    shape = (size, size, 3)
    total, products = sums[:-10].reshape(shape), sums[-10:-1].reshape(3, 3)

    def measure(index: int) -> tuple[UInt8Array, npt.NDArray[np.float64]] | None:
        if (image := store.get(index)) is None:
            return None
        pixels = image.reshape(-1, 3).astype(np.float64)
        return image, pixels.T @ pixels

    for done, measured in enumerate(map_in_order(own, measure), start=1):
        if measured:
            total += measured[0]
            products += measured[1]
            sums[-1] += 1
        if progress:
            progress(done, len(own))
    sums = add_up(sums)
    total, products, n = sums[:-10].reshape(shape), sums[-10:-1].reshape(3, 3), sums[-1]
    mean_image = total / n
    mean = mean_image.mean(axis=(0, 1))
    covariance = products / (n * size * size) - np.outer(mean, mean)
    return Statistics(mean_image.astype(np.float32), covariance)
