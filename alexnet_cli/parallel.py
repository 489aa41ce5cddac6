"""Work in threads, results in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(
    items: Iterable[T], function: Callable[[T], R], threads: int | None = None, ahead: int = 16
) -> Iterator[R]:
    """Yield `function(item)` for each of `items`, in order, computed up to `ahead` in threads."""
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
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


def for_each(
    items: Sequence[T],
    function: Callable[[T], R],
    progress: Callable[[int, int], None] | None = None,
) -> list[R]:
    """Return `function(item)` for each of `items`, telling `progress` (done, total)."""
    results: list[R] = []
    for result in in_order(items, function):
        results.append(result)
        if progress:
            progress(len(results), len(items))
    return results
