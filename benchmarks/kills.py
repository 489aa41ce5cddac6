"""Two workers, one of them killed at random and the job resumed, ten times over.

    python -m benchmarks.kills [--kills 10] [--seed 0]

A narrow network on examples/flowers. In the end weights, velocities, dropout's draws and history
must be those of two workers that nobody disturbed, to the last bit.
"""

from __future__ import annotations

import argparse
import random
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from alexnet_cli.artifacts import load_arrays, load_notes
from benchmarks.common import FLOWERS, alexnet

_SIZES = {"stored_size": 72, "crop_size": 64, "fc6.units": 64, "fc7.units": 64, "conv1.filters": 16}
NARROW = [word for name, value in _SIZES.items() for word in ("--set", f"{name}={value}")]


def start(*arguments: object) -> list[subprocess.Popen[str]]:
    """Start two workers on free ports of this machine."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    workers = ",".join(f"127.0.0.1:{s.getsockname()[1]}" for s in sockets)
    for s in sockets:
        s.close()
    which = [("--gpus", 0, "--workers", workers, "--worker", index) for index in range(2)]
    pipe = subprocess.PIPE
    return [
        subprocess.Popen(alexnet("train", *arguments, *w), stdout=pipe, stderr=pipe, text=True)
        for w in which
    ]


def finish(processes: list[subprocess.Popen[str]]) -> list[int]:
    """Wait for both; returns their exit codes."""
    for process in processes:
        process.communicate(timeout=120)
    return [process.returncode for process in processes]


def epochs_done(run: Path) -> int:
    """Read how far a run is."""
    return int(load_notes(load_arrays(run / "last.npz", only="notes"))["epoch"])


def main() -> None:
    """Kill, resume and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        cut, whole = Path(folder, "cut"), Path(folder, "whole")
        first = (FLOWERS, *NARROW, "--out", cut, "--epochs", 10_000)
        for number in range(1, arguments.kills + 1):
            begun = (cut / "latest").exists()
            again = ("--resume", cut / "latest", "--epochs", 10_000)
            processes = start(*(again if begun else first))
            assert processes[0].stdout
            for text in processes[0].stdout:  # until an epoch of this start is done
                if text.split()[:1] and text.split()[0].isdecimal():
                    break
            time.sleep(draw.uniform(0, 4))
            victim = draw.randrange(2)
            processes[victim].kill()
            killed = time.monotonic()
            codes = finish(processes)
            seconds, done = time.monotonic() - killed, epochs_done(cut / "latest")
            print(f"kill {number}: worker {victim}, after epoch {done}; ", end="")
            print(f"the other left with {codes[1 - victim]} in {seconds:.1f} s", flush=True)
            assert codes[victim] == -signal.SIGKILL
            assert codes[1 - victim] == 75
        last = epochs_done(cut / "latest") + 1
        assert finish(start("--resume", cut / "latest", "--epochs", last)) == [0, 0]
        assert finish(start(FLOWERS, *NARROW, "--out", whole, "--epochs", last)) == [0, 0]
        ours, theirs = (load_arrays(run / "latest" / "last.npz") for run in (cut, whole))
        notes = [load_notes(arrays) for arrays in (ours, theirs)]
        for row in (row for note in notes for row in note["history"]):
            del row["seconds"], row["images_per_second"]
        same = notes[0] == notes[1] and ours.keys() == theirs.keys()
        same = same and all(np.array_equal(ours[name], theirs[name]) for name in ours)
        print(
            f"{arguments.kills} kills, {last} epochs: {'the same to the last bit' if same else 'DIFFERENT'}"
        )
        raise SystemExit(not same)


if __name__ == "__main__":
    main()
