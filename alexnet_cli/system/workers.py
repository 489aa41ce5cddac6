"""Work in threads or processes, results in order."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

PROCESS_THRESHOLD = 5000  # from which on processes are worth the second that they take to start
CHUNK = 32
BATCH_CROPS = 128  # that a network sees at once


def map_in_order(
    items: Iterable[T], function: Callable[[T], R], threads: int | None = None, ahead: int = 16
) -> Iterator[R]:
    """Yield `function(item)` for each of `items`, in order, computed up to `ahead` in threads."""
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        yield from _through(pool, items, function, ahead)


def _through(
    pool: Executor, items: Iterable[T], function: Callable[[T], R], ahead: int
) -> Iterator[R]:
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def skip_missing(kept: list[T], items: Iterable[T], results: Iterable[R | None]) -> Iterator[R]:
    """Yield the results that are not None, and note in `kept` which of `items` each belongs to."""
    for item, result in zip(items, results):
        if result is not None:
            kept.append(item)
            yield result


def map_in_processes(items: Sequence[T], function: Callable[[T], R]) -> Iterator[R]:
    """Yield `function(item)` in order; of `PROCESS_THRESHOLD` items or more from a process per core.

    Threads share an interpreter, which many cores would wait for. `function` belongs to a module.
    """
    if len(items) < PROCESS_THRESHOLD:
        yield from map_in_order(items, function)
        return
    n_cores = os.cpu_count() or 1
    chunks = (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))
    # Not forked: this process has threads. Ctrl-C is for the parent to heed.
    with ProcessPoolExecutor(
        n_cores, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
    ) as pool:
        for results in _through(pool, chunks, partial(_each, function), 4 * n_cores):
            yield from results


def _each(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    return [function(item) for item in items]


def map_with_progress(
    items: Sequence[T],
    function: Callable[[T], R],
    progress: Callable[[int, int], None] | None = None,
) -> list[R]:
    """Return `function(item)` for each of `items`, telling `progress` (done, total)."""
    results: list[R] = []
    for result in map_in_order(items, function):
        results.append(result)
        if progress:
            progress(len(results), len(items))
    return results


def group_crops(images: Iterable[Any], n_crops: Any) -> Iterator[list[Any]]:
    """Group images as they come, `BATCH_CROPS` crops at a time."""
    batch: list[Any] = []
    for image in images:
        batch.append(image)
        if sum(map(n_crops, batch)) + n_crops(image) > BATCH_CROPS:
            yield batch
            batch = []
    if batch:
        yield batch
