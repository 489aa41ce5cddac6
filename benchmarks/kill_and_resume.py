"""Kill a training with SIGKILL at random moments, resume it each time, and compare the result.

    python -m benchmarks.kill_and_resume [--kills 200] [--workers 1] [--seed 0]

A narrow network on examples/flowers. Every second kill comes while a file of the run is being
written; of several workers one is killed. In the end weights, velocities, state of the dropout,
history and best epoch must equal those of an uninterrupted run, bit by bit.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np

import alexnet_cli as alexnet
from alexnet_cli.errors import AlexNetError
from alexnet_cli.recipes.presets import PAPER
from alexnet_cli.runs.records import EpochRow
from alexnet_cli.runs.run_folder import BEST, CONFIG, HISTORY, LAST, LATEST, RunFolder
from alexnet_cli.runs.weights_file import load_arrays, read_notes
from alexnet_cli.training.callbacks import Callback, TrainPlan
from benchmarks.common import FLOWERS, free_addresses

# Quick to compile and to run, with files of some megabytes; the best epoch changes often.
NARROW = replace(
    PAPER,
    resize_size=72,
    crop_size=64,
    convs=tuple(
        replace(conv, filters=16, stddev=None, post_ops=("relu", "pool"))
        for conv in (PAPER.convs[0], PAPER.convs[1], PAPER.convs[4])
    ),
    dense=tuple(replace(layer, units=1024, stddev=None) for layer in PAPER.dense),
    output_stddev=None,
    batch_size=16,
    learning_rate=0.001,
    rate_drops=0,
    epochs=10_000,
)

# Its processes fork from one that has imported TensorFlow and not used it, which makes them safe
# and quick to start.
_SERVER = multiprocessing.get_context("forkserver")


class _Reporter(Callback):
    """Sends the run folder, and then the number of each epoch that is on disk."""

    def __init__(self, parent: Connection) -> None:
        self.parent = parent

    def on_train_begin(self, plan: TrainPlan) -> None:
        self.parent.send(plan.run)

    def on_epoch_end(self, row: EpochRow, *, best: bool) -> None:
        self.parent.send(row.epoch)


def train_worker(
    parent: Connection, hosts: list[str] | None, rank: int | None, place: Path, epochs: int | None
) -> None:
    """Train as one worker: resume the run at `place`, or begin one in that folder."""
    callback = _Reporter(parent)
    try:
        if (place / CONFIG).exists():
            alexnet.resume(place, epochs=epochs, gpus=0, hosts=hosts, rank=rank, callback=callback)
        else:
            alexnet.train(
                FLOWERS,
                recipe=NARROW,
                epochs=epochs,
                gpus=0,
                precision="float32",
                hosts=hosts,
                rank=rank,
                out=place,
                callback=callback,
            )
    except AlexNetError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


class Job:
    """The workers of one training, started together."""

    def __init__(self, n_workers: int, place: Path, epochs: int | None = None) -> None:
        """Start the workers, on free ports of this machine."""
        hosts = free_addresses(n_workers) if n_workers > 1 else None
        self.processes: list[ForkServerProcess] = []
        self.pipes: list[Connection] = []
        for rank in range(n_workers):
            ours, theirs = _SERVER.Pipe(duplex=False)
            arguments = (theirs, hosts, rank if hosts else None, place, epochs)
            process = _SERVER.Process(target=train_worker, args=arguments)
            process.start()
            theirs.close()
            self.processes.append(process)
            self.pipes.append(ours)

    def receive(self) -> object:
        """Wait for the next message of the chief."""
        return self.pipes[0].recv()

    def finish(self) -> list[int | None]:
        """Wait until all workers have ended; returns their exit codes."""
        for process in self.processes:
            process.join(300)
        return [process.exitcode for process in self.processes]


def leftovers(run: Path) -> list[str]:
    """Return the names of temporary files: being written, or left by a killed writer."""
    return [path.name.rpartition(".")[0] for path in run.glob(".*")]


def moment(run: Path) -> str:
    """Return what a killed run was doing, judged by its files."""
    if left := leftovers(run):
        assert len(left) == 1, f"{left}: left by several kills"
        return f"while writing {left[0][1:] or f'the link {LATEST}'}"
    if not (run / LAST).exists():
        return "before anything was saved"
    done = epochs_done(run)
    if RunFolder(run).best_epoch() > done:
        return f"between {BEST} and {LAST}"
    with suppress(FileNotFoundError), (run / HISTORY).open() as file:
        if len(list(csv.DictReader(file))) == done:
            return "while training an epoch"
    return f"between {LAST} and {HISTORY}"


def epochs_done(run: Path) -> int:
    """Return the number of finished epochs in the checkpoint of a run."""
    return RunFolder(run).checkpoint().epoch


def kill_once(n_workers: int, place: Path, draw: random.Random, *, while_writing: bool) -> Path:
    """Start or resume a training, and kill one worker; returns the run folder."""
    job = Job(n_workers, place)
    run = job.receive()
    assert isinstance(run, Path)
    if while_writing:
        job.receive()  # an epoch is on disk: the next files are written soon
        while not leftovers(run):
            time.sleep(0.0002)
        time.sleep(draw.uniform(0, 0.03))
    else:
        time.sleep(draw.uniform(0, 6))  # it compiles, trains, validates, saves
    victim = draw.randrange(n_workers)
    job.processes[victim].kill()
    codes = job.finish()
    assert codes.pop(victim) == -signal.SIGKILL
    assert all(code == 75 for code in codes), codes
    return run


def same(one: Path, two: Path) -> bool:
    """Compare the arrays and notes of two runs, except for the times in the history."""
    runs = [RunFolder(one), RunFolder(two)]
    last, best = ([load_arrays(run.path / name) for run in runs] for name in (LAST, BEST))
    metas = [read_notes(run.path / LAST) for run in runs]
    for row in (row for meta in metas for row in meta["history"]):
        del row["seconds"], row["images_per_second"]
    equal_notes = metas[0] == metas[1] and runs[0].best_epoch() == runs[1].best_epoch()
    return equal_notes and all(
        a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
        for a, b in (last, best)
    )


def main() -> None:
    """Kill and resume a training, then compare it with an uninterrupted one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    _SERVER.set_forkserver_preload(["alexnet_cli.training.start_and_resume"])
    draw, began, n = random.Random(arguments.seed), time.monotonic(), arguments.workers
    moments: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        killed, whole = Path(folder, "killed"), Path(folder, "whole")
        place = killed
        for number in range(1, arguments.kills + 1):
            run = kill_once(n, place, draw, while_writing=number % 2 == 0)
            when = moment(run)
            moments[when] += 1
            place = run if (run / LAST).exists() else killed
            done = epochs_done(run) if place == run else 0
            print(f"kill {number}, after epoch {done}: {when}", flush=True)
        last = epochs_done(place) + 1
        for job in (Job(n, place, last), Job(n, whole, last)):
            assert job.finish() == [0] * n
        equal = same(place, (whole / LATEST).resolve())
        assert not leftovers(place)
    print()
    for when, count in moments.most_common():
        print(f"{count:4} {when}")
    minutes = (time.monotonic() - began) / 60
    verdict = "equal to an uninterrupted run, bit by bit" if equal else "DIFFERENT"
    print(f"{arguments.kills} kills, {last} epochs, {minutes:.0f} min: {verdict}")
    raise SystemExit(not equal)


if __name__ == "__main__":
    main()
