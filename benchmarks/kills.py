"""A training killed by SIGKILL at random moments and resumed each time, beside one left in peace.

    python -m benchmarks.kills [--kills 200] [--workers 1] [--seed 0]

A narrow network on examples/flowers. Every other kill comes while a file of the run is being
written; of several workers one is killed. In the end weights, velocities, dropout's draws, history
and best epoch must be those of the undisturbed run, to the last bit.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import random
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np

from alexnet_cli.errors import AlexNetError
from alexnet_cli.recipes.presets import PAPER
from alexnet_cli.runs.records import EpochRow
from alexnet_cli.runs.run_folder import BEST, LAST, RunFolder
from alexnet_cli.runs.weights_file import load_arrays, read_notes
from alexnet_cli.training.callbacks import Callback, TrainPlan
from alexnet_cli.training.cluster import Cluster, wait_for_workers
from benchmarks.common import FLOWERS

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

# A process of it has imported TensorFlow, but not begun to use it, and so can fork.
_SERVER = multiprocessing.get_context("forkserver")


class _Teller(Callback):
    """Sends the run's folder, and then the number of each epoch that is on disk."""

    def __init__(self, parent: Connection) -> None:
        self.parent = parent

    def on_train_begin(self, plan: TrainPlan) -> None:
        self.parent.send(plan.run)

    def on_epoch_end(self, row: EpochRow, *, best: bool) -> None:
        self.parent.send(row.epoch)


def work(parent: Connection, cluster: Cluster | None, place: Path, epochs: int | None) -> None:
    """Train as one worker: resume the run at `place`, or begin one in it."""
    from alexnet_cli.training import start_and_resume
    from alexnet_cli.training.devices import choose_devices

    if cluster:
        wait_for_workers(cluster)
    devices, callback = choose_devices(0, "float32", cluster), _Teller(parent)
    try:
        if (place / "config.json").exists():
            start_and_resume.resume(place, devices=devices, epochs=epochs, callback=callback)
        else:
            recipe = replace(NARROW, epochs=epochs or NARROW.epochs)
            start_and_resume.train(
                FLOWERS, recipe=recipe, devices=devices, out=place, callback=callback
            )
    except AlexNetError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


class Job:
    """The workers of one training, started together."""

    def __init__(self, n_workers: int, place: Path, epochs: int | None = None) -> None:
        """Start them, on free ports of this machine."""
        clusters: Sequence[Cluster | None] = [None]
        if n_workers > 1:
            sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n_workers)]
            names = tuple(f"127.0.0.1:{s.getsockname()[1]}" for s in sockets)
            for s in sockets:
                s.close()
            clusters = [Cluster(names, index) for index in range(n_workers)]
        self.processes: list[ForkServerProcess] = []
        self.pipes: list[Connection] = []
        for cluster in clusters:
            ours, theirs = _SERVER.Pipe(duplex=False)
            process = _SERVER.Process(target=work, args=(theirs, cluster, place, epochs))
            process.start()
            theirs.close()
            self.processes.append(process)
            self.pipes.append(ours)

    def hear(self) -> object:
        """Wait for what the chief has to say next."""
        return self.pipes[0].recv()

    def finish(self) -> list[int | None]:
        """Wait for the end of all; returns their exit codes."""
        for process in self.processes:
            process.join(300)
        return [process.exitcode for process in self.processes]


def leftovers(run: Path) -> list[str]:
    """Name the files that are being written, or were when their writer was killed."""
    return [path.name.rpartition(".")[0] for path in run.glob(".*")]


def moment(run: Path) -> str:
    """Tell from the files of a killed run what it was doing."""
    if left := leftovers(run):
        assert len(left) == 1, f"{left}: left by several kills"
        return f"while writing {left[0][1:] or 'the link `latest`'}"
    if not (run / LAST).exists():
        return "before anything was saved"
    done = epochs_done(run)
    if RunFolder(run).best_epoch() > done:
        return f"between {BEST} and {LAST}"
    with suppress(FileNotFoundError), (run / "history.csv").open() as file:
        if len(list(csv.DictReader(file))) == done:
            return "while learning"
    return f"between {LAST} and history.csv"


def epochs_done(run: Path) -> int:
    """Read how far a run is."""
    return int(read_notes(run / LAST)["epoch"])


def kill_once(n_workers: int, place: Path, draw: random.Random, in_writing: bool) -> Path:
    """Start or resume, and kill one worker; returns the run's folder."""
    job = Job(n_workers, place)
    run = job.hear()
    assert isinstance(run, Path)
    if in_writing:
        job.hear()  # an epoch is done: the next writing comes soon
        while not leftovers(run):
            time.sleep(0.0002)
        time.sleep(draw.uniform(0, 0.03))
    else:
        time.sleep(draw.uniform(0, 6))  # it compiles, learns, validates, saves
    victim = draw.randrange(n_workers)
    job.processes[victim].kill()
    codes = job.finish()
    assert codes.pop(victim) == -signal.SIGKILL
    assert all(code == 75 for code in codes), codes
    return run


def same(one: Path, two: Path) -> bool:
    """Compare all that lasts, but for the timings in the history."""
    runs = [RunFolder(one), RunFolder(two)]
    last, best = ([load_arrays(run.path / name) for run in runs] for name in (LAST, BEST))
    notes = [read_notes(run.path / LAST) for run in runs]
    for row in (row for note in notes for row in note["history"]):
        del row["seconds"], row["images_per_second"]
    return notes[0] == notes[1] and all(
        a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
        for a, b in (last, best)
    )


def main() -> None:
    """Kill, resume and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    _SERVER.set_forkserver_preload(["alexnet_cli.training.start_and_resume"])
    draw, began, n = random.Random(arguments.seed), time.monotonic(), arguments.workers
    moments: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        cut, whole = Path(folder, "cut"), Path(folder, "whole")
        place = cut
        for number in range(1, arguments.kills + 1):
            run = kill_once(n, place, draw, in_writing=number % 2 == 0)
            when = moment(run)
            moments[when] += 1
            place = run if (run / LAST).exists() else cut
            done = epochs_done(run) if place == run else 0
            print(f"kill {number}, after epoch {done}: {when}", flush=True)
        last = epochs_done(place) + 1
        for job in (Job(n, place, last), Job(n, whole, last)):
            assert job.finish() == [0] * n
        equal = same(place, (whole / "latest").resolve())
        assert not leftovers(place)
    print()
    for when, count in moments.most_common():
        print(f"{count:4} {when}")
    minutes = (time.monotonic() - began) / 60
    verdict = "the same to the last bit" if equal else "DIFFERENT"
    print(f"{arguments.kills} kills, {last} epochs, {minutes:.0f} min: {verdict}")
    raise SystemExit(not equal)


if __name__ == "__main__":
    main()
