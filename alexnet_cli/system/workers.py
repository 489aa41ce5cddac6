"""Map a function over many items in threads or processes; results come in the order of the items."""

from __future__ import annotations

import os
import signal
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
Progress = Callable[[int, int], None]  # (done, total)

PROCESS_THRESHOLD = 5000  # items; for fewer, the second it takes to start processes is too long
LEAST_AHEAD = 16  # results of threads, as items take unequal time
CHUNK = 32  # items that are sent to a process at once


def map_in_order(
    items: Iterable[T],
    function: Callable[[T], R],
    threads: int | None = None,
    ahead: int | None = None,
) -> Iterator[R]:
    """Yield `function(item)` for each of `items`, in their order, computed in threads.

    At most `ahead` results are computed before they are asked for, by default two for each thread,
    so that none waits for the reader, but at least `LEAST_AHEAD`. `threads` is by default the number
    of cores. An exception in `function` is raised in place of its result; calls that have not
    started by then are canceled.
    """
    threads = threads or os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        yield from _map_in_pool(pool, items, function, ahead or max(2 * threads, LEAST_AHEAD))


def _map_in_pool(
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
    """Yield the `results` that are not None, and append to `kept` the item of each.

    `items` and `results` have the same order and length.
    """
    for item, result in zip(items, results):
        if result is not None:
            kept.append(item)
            yield result


def map_in_processes(items: Sequence[T], function: Callable[[T], R]) -> Iterator[R]:
    """Yield `function(item)` for each of `items`, in their order, computed in one process per core.

    Fewer than `PROCESS_THRESHOLD` items are computed in threads instead; threads share one
    interpreter, which limits them on many cores. `function`, items and results must be picklable.
    """
    if len(items) < PROCESS_THRESHOLD:
        yield from map_in_order(items, function)
        return
    n_cores = os.cpu_count() or 1
    chunks = (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))
    # Spawned, not forked, as this process has threads. Only this process handles Ctrl-C.
    with ProcessPoolExecutor(n_cores, get_context("spawn"), _start_process) as pool:
        for results in _map_in_pool(pool, chunks, partial(_map_chunk, function), 4 * n_cores):
            yield from results


def _start_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")


def _map_chunk(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    return [function(item) for item in items]


def map_with_progress(
    items: Sequence[T], function: Callable[[T], R], progress: Progress | None = None
) -> list[R]:
    """Return `function(item)` for each of `items`, computed in threads.

    `progress`, if given, is called with (done, total) after each item.
    """
    results: list[R] = []
    for result in map_in_order(items, function):
        results.append(result)
        if progress:
            progress(len(results), len(items))
    return results
