"""Worker pools: the order of results, errors, and when processes are used."""

from __future__ import annotations

import os
import threading

import pytest
from helpers import HANG

from alexnet_cli.system import workers
from alexnet_cli.system.workers import map_in_order, map_in_processes


def test_results_come_in_order_and_errors_in_their_place():
    def invert(x):
        return 1 / x

    assert list(map_in_order(range(1, 50), invert, threads=4, ahead=7)) == [
        1 / x for x in range(1, 50)
    ]
    results = map_in_order([2, 1, 0, 5], invert, threads=2, ahead=2)
    assert [next(results), next(results)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_as_many_threads_work_as_there_are_cores(monkeypatch):
    """Oracle: a barrier, which opens only when 40 calls wait at it at once."""
    monkeypatch.setattr(os, "cpu_count", lambda: 40)
    barrier = threading.Barrier(40, timeout=HANG)
    assert sorted(map_in_order(range(40), lambda _: barrier.wait())) == list(range(40))


def _process_of(number: int) -> tuple[int, int]:
    return number, os.getpid()


def test_many_items_are_worked_on_in_other_processes(monkeypatch):
    """Oracle: the order of the items, and the numbers of the processes."""
    monkeypatch.setattr(workers, "PROCESS_THRESHOLD", 100)
    found = list(map_in_processes(range(100), _process_of))
    assert [number for number, _ in found] == list(range(100))
    assert os.getpid() not in {process for _, process in found}
    few = list(map_in_processes(range(99), _process_of))
    assert {process for _, process in few} == {os.getpid()}
