"""Batches of crops: as many images as a network classifies at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

BATCH_CROPS = 128


def group_crops(images: Iterable[T], n_crops: Callable[[T], int]) -> Iterator[list[T]]:
    """Yield lists of consecutive `images`, each list of at most `BATCH_CROPS` crops in total.

    `n_crops` returns the number of crops of an image, which is the same for all of them.
    """
    batch: list[T] = []
    for image in images:
        batch.append(image)
        if sum(map(n_crops, batch)) + n_crops(image) > BATCH_CROPS:
            yield batch
            batch = []
    if batch:
        yield batch
