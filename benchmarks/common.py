"""What the benchmarks share."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

FLOWERS = Path(__file__).parent.parent / "examples" / "flowers"


def folder_of_photographs() -> Path:
    """Take the class folders that the command line names, by default examples/flowers."""
    return Path(sys.argv[1]) if len(sys.argv) > 1 else FLOWERS


def alexnet(*arguments: object) -> list[str]:
    """Spell the command that runs `alexnet` with these arguments."""
    return [sys.executable, "-m", "alexnet_cli", *map(str, arguments)]


def run(command: list[str]) -> str:
    """Run a command to its good end; returns what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


def seconds_of(command: list[str], repeats: int = 7) -> float:
    """Return the median seconds of a whole process, the first run (cold files) left out."""
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        run(command)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def line(what: str, value: str, ratio: float | None = None, goal: str = "") -> None:
    """Print a measurement, and how it compares with the one above it."""
    compared = "" if ratio is None else f"   {ratio:.2f} times"
    print(f"{what:<44} {value:>16}{compared}{f' (goal: {goal})' if goal else ''}", flush=True)
