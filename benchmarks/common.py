"""Helpers that the benchmarks share: the images, the command line, timing and output."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FLOWERS = Path(__file__).parent.parent / "examples" / "flowers"


def image_folder() -> Path:
    """Return the folder of class folders that the command line names, by default examples/flowers."""
    return Path(sys.argv[1]) if len(sys.argv) > 1 else FLOWERS


def link_images(folder: Path, data: Path, at_least: int = 1) -> Path:
    """Return `data`, made a split of links: every image of `folder` trains, every fifth validates.

    Every image has as many links as it takes for `at_least` training images.
    """
    images = sorted(path.resolve() for path in folder.glob("*/*") if path.is_file())
    copies = -(-at_least // len(images))
    for split, chosen, times in (("train", images, copies), ("val", images[::5], 1)):
        for image in chosen:
            label = data / split / image.parent.name
            label.mkdir(parents=True, exist_ok=True)
            for number in range(times):
                os.symlink(image, label / f"{number}-{image.name}")
    return data


def alexnet_command(*arguments: object) -> list[str]:
    """Return the command that runs `alexnet` with these arguments."""
    return [sys.executable, "-m", "alexnet_cli", *map(str, arguments)]


def run_command(command: list[str]) -> str:
    """Run a command and return its standard output; exit with its standard error if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


def median_seconds(command: list[str], repeats: int = 7) -> float:
    """Return the median run time of a command, in seconds, after a first run that is not counted."""
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        run_command(command)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def batch_of(images: Any, targets: Any) -> Any:
    """Return these tensors as a batch on one device."""
    import tensorflow as tf

    from alexnet_cli.training.batches import Batch

    return Batch(images, targets, tf.range(len(images)), tf.zeros(2, tf.int32))


def free_addresses(count: int) -> list[str]:
    """Return so many addresses (host:port) of this machine whose ports are free."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    return addresses


def print_row(what: str, value: str, ratio: float | None = None, goal: str = "") -> None:
    """Print a measurement, its ratio to the measurement it is compared with, and the goal."""
    compared = "" if ratio is None else f"   {ratio:.2f} times"
    print(f"{what:<44} {value:>16}{compared}{f' (goal: {goal})' if goal else ''}", flush=True)
