"""Trainings that a benchmark compares: each in a process with one thread, and never done twice.

As many run at a time as the machine has cores. A training that was interrupted resumes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_cli.runs.run_folder import LATEST, METRICS
from benchmarks.common import alexnet_command, run_command

ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}


@dataclass(frozen=True)
class TrainingJob:
    """One training: its name, its seed and its options of `alexnet train`."""

    name: str
    seed: int
    options: tuple[str, ...]
    epoch_share: float = 1.0  # of the epochs: a training that stays at chance needs fewer

    def folder(self, out: Path) -> Path:
        """Return the folder for its run, log and evaluation."""
        return out / f"{self.name}-{self.seed}".replace(", ", "-").replace(" ", "-")

    def run_folder(self, out: Path) -> Path:
        """Return its run folder."""
        return self.folder(out) / LATEST

    def evaluation(self, out: Path) -> dict[str, Any] | None:
        """Return what `alexnet evaluate --json` printed for its run; None if it has not ended."""
        path = self._evaluation_path(out)
        return json.loads(path.read_text()) if path.exists() else None

    def run(self, data: Path, out: Path, epochs: int, split: str) -> None:
        """Train on `data` and evaluate on `split`, unless that has been done; failures are printed."""
        evaluation = self._evaluation_path(out)
        if evaluation.exists():
            return
        self.folder(out).mkdir(parents=True, exist_ok=True)
        run = self.run_folder(out)
        evaluate = alexnet_command("evaluate", "--model", run, "--ten-crop")
        evaluate += ["--split", split, "--json"]
        environment = {**os.environ, **ONE_THREAD}
        log_path = self.folder(out) / "log.txt"
        with log_path.open("a") as log:
            try:
                if not (run / METRICS).exists():
                    train = self._train_command(data, out, epochs)
                    subprocess.run(train, env=environment, stdout=log, stderr=log, check=True)
                done = subprocess.run(
                    evaluate, env=environment, stdout=subprocess.PIPE, stderr=log, check=True
                )
            except subprocess.CalledProcessError as error:
                code = error.returncode
                print(f"{self.name}, seed {self.seed}: exit code {code}; see {log_path}")
                return
        evaluation.write_bytes(done.stdout)
        print(f"{self.name}, seed {self.seed}: done", flush=True)

    def _evaluation_path(self, out: Path) -> Path:
        return self.folder(out) / "evaluation.json"

    def _train_command(self, data: Path, out: Path, epochs: int) -> list[str]:
        run = self.run_folder(out)
        if run.exists():
            return alexnet_command("train", "--resume", run, "--gpus", 0)
        n_epochs = max(1, round(epochs * self.epoch_share))
        options = ("--epochs", n_epochs, "--gpus", 0, "--seed", self.seed)
        return alexnet_command("train", data, *self.options, *options, "--out", self.folder(out))


def run_all(
    jobs: Sequence[tuple[TrainingJob, Path]], out: Path, epochs: int, split: str = "val"
) -> None:
    """Run each job on its data, as many at a time as the machine has cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda job: job[0].run(job[1], out, epochs, split), jobs))


def parse_arguments(
    description: str | None, *, seeds: int, epochs: int, paths: Sequence[str] = ()
) -> argparse.Namespace:
    """Return `folder`, `out`, `seeds` and `epochs` of the command line, with these defaults.

    Each of `paths` is another option that takes a path. All other arguments are returned in
    `options`, a tuple; they are those of `alexnet train`.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--epochs", type=int, default=epochs)
    for name in paths:
        parser.add_argument(f"--{name}", type=Path)
    arguments, options = parser.parse_known_args()
    arguments.options = tuple(options)
    arguments.out = arguments.out.resolve()
    return arguments


def split_once(folder: Path, out: Path, *options: str) -> Path:
    """Split `folder` with links into OUT/data, unless that exists; returns that folder."""
    data = out / "data"
    if not data.exists():
        out.mkdir(parents=True, exist_ok=True)
        run_command(alexnet_command("split", folder, *options, "--out", data, "--link", "symbolic"))
    return data
