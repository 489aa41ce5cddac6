"""The paper's ablations, all recipes and an ensemble of seeds, on one folder of photographs.

    python -m benchmarks.ablations FOLDER OUT [--seeds 3] [--epochs 24] [--size 112]

FOLDER holds class folders. Every training is `alexnet train` in a process of its own, with one
thread, as many at a time as the machine has cores; one that is done is not done again, one that was
stopped goes on. OUT/table.md is the result. Crops of 112 from 128 make a training four times as
fast as the paper's 224 from 256; `--size 224` is the paper's.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

# Points of top-1 error that the paper's network has more without each, on ILSVRC-2010 (sections 3.2 to 4.1, 7)
PAPER = {
    "no-lrn": "1.4",
    "no-overlap": "0.4",
    "one-tower": "1.7",
    "no-color-noise": "over 1",
    "no-conv3": "about 2",
    "no-conv4": "about 2",
    "no-dropout": "it over-fits substantially",
    "tanh": "six times as many epochs to 25 % training error (CIFAR-10)",
}
# In a run this short the validation error would hardly have time to say when to drop the rate.
BASE = ("--recipe", "paper", "--set", "drop_at=0.8")
T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}  # Student's t for the mean of so many


@dataclass(frozen=True)
class Job:
    """One training: its name, its seed and what it adds to the command."""

    name: str
    seed: int
    options: tuple[str, ...]
    share: float = 1.0  # of the epochs: what stays flat need not run to the end

    def folder(self, out: Path) -> Path:
        """Name the folder of its run, log and evaluation."""
        return out / f"{self.name}-{self.seed}".replace(", ", "-").replace(" ", "-")


@dataclass(frozen=True)
class Result:
    """What a training came to; errors are shares."""

    val_error: float  # mean of the last three epochs: one epoch's hops by a point or two
    train_error: float  # of the last epoch, with augmentation and dropout
    best_epoch: int
    one_crop: float  # top-1 of the best epoch
    ten_crop: float
    minutes: float


def sizes(recipe: str, size: int) -> tuple[str, ...]:
    """Shrink a recipe's images in proportion, 224 from 256 being `size` from 8/7 of it."""
    stored, crop = size * 8 // 7, size
    if recipe == "caffe":
        crop = 227 * size // 224
    if recipe == "notebook":
        stored = crop = 227 * size // 224
    return ("--set", f"resize_size={stored}", "--set", f"crop_size={crop}")


def plan(seeds: int, size: int) -> list[Job]:
    """List all trainings, the first seed of everything before the second of anything."""
    small = sizes("paper", size)
    jobs = []
    for seed in range(seeds):
        jobs.append(Job("paper", seed, (*BASE, *small)))
        jobs += [Job(v, seed, (*BASE, "--variant", v, *small)) for v in PAPER]
    for seed in range(max(seeds, 1), 3):  # for the ensemble of three
        jobs.append(Job("paper", seed, (*BASE, *small)))
    for name, recipe, variants in (
        ("released-2012, biases 0.1", "released-2012", ("--variant", "biases-0.1")),
        ("caffe", "caffe", ()),
        ("notebook", "notebook", ()),
        ("literal", "literal", ()),
        ("released-2012", "released-2012", ()),
    ):
        share = 0.25 if name in ("literal", "released-2012") else 1.0
        options = ("--recipe", recipe, *variants, *sizes(recipe, size))
        jobs.append(Job(name, 0, options, share))
    return jobs


def run(job: Job, data: Path, out: Path, epochs: int, split: str = "val") -> None:
    """Train and evaluate, unless that has been done."""
    folder = job.folder(out)
    done = folder / "evaluation.json"
    if done.exists():
        return
    one_thread = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    environment = {**os.environ, **one_thread}
    alexnet = [sys.executable, "-m", "alexnet_cli"]
    epochs = max(1, round(epochs * job.share))
    latest = folder / "latest"
    if latest.exists():
        train = [*alexnet, "train", "--resume", str(latest), "--gpus", "0"]
    else:
        train = [*alexnet, "train", str(data), *job.options, "--epochs", str(epochs)]
        train += ["--out", str(folder), "--gpus", "0", "--seed", str(job.seed)]
    evaluate = [*alexnet, "evaluate", "--model", str(latest), "--ten-crop"]
    evaluate += ["--split", split, "--json"]
    commands = [evaluate] if (latest / "metrics.json").exists() else [train, evaluate]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a") as log:
        for command in commands:
            output = subprocess.PIPE if command is evaluate else log
            result = subprocess.run(command, env=environment, stdout=output, stderr=log)
            if result.returncode:
                code = result.returncode
                print(f"{job.name}, seed {job.seed}: exit code {code}, see {folder}/log.txt")
                return
    done.write_bytes(result.stdout)
    print(f"{job.name}, seed {job.seed}: done", flush=True)


def read(job: Job, out: Path) -> Result | None:
    """Read the result of a training that is done."""
    folder = job.folder(out)
    if not (folder / "evaluation.json").exists():
        return None
    scores = json.loads((folder / "evaluation.json").read_text())
    with (folder / "latest" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    return Result(
        val_error=statistics.mean(1 - float(row["val_top1"]) for row in rows[-3:]),
        train_error=1 - float(rows[-1]["train_top1"]),
        best_epoch=scores["members"][0]["epoch"],
        one_crop=scores["one_crop"]["top1"],
        ten_crop=scores["ten_crop"]["top1"],
        minutes=sum(float(row["seconds"]) for row in rows) / 60,
    )


def tables(jobs: list[Job], out: Path) -> str:
    """Write the ablations beside the paper's, and the recipes beside each other."""
    found = {(job.name, job.seed): result for job in jobs if (result := read(job, out))}
    base = [100 * result.val_error for (name, _), result in found.items() if name == "paper"]
    lines = [
        "| | seeds | validation error, % | points more than the paper's network | in the paper |"
    ]
    lines += ["|---|---|---|---|---|"]
    for name in ("paper", *PAPER):
        errors = [100 * result.val_error for (n, _), result in found.items() if n == name]
        if not errors:
            continue
        text = f"{statistics.mean(errors):.1f}"
        text += f" (from {min(errors):.1f} to {max(errors):.1f})" if len(errors) > 1 else ""
        delta = f"{statistics.mean(errors) - statistics.mean(base):+.1f}" if name != "paper" else ""
        if delta and min(len(errors), len(base)) > 1:
            variance = sum(statistics.variance(e) / len(e) for e in (errors, base))
            delta += f" ± {T95[min(len(errors), len(base))] * math.sqrt(variance):.1f}"
        cells = (name, str(len(errors)), text, delta, PAPER.get(name, ""))
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "| recipe | best epoch | top-1, one crop | ten crops | training error | minutes |",
    ]
    lines += ["|---|---|---|---|---|---|"]
    for (name, seed), r in found.items():
        if name not in PAPER:
            scores = f"{r.one_crop:.3f} | {r.ten_crop:.3f} | {r.train_error:.3f}"
            lines.append(f"| {name}, seed {seed} | {r.best_epoch} | {scores} | {r.minutes:.0f} |")
    return "\n".join(lines) + "\n"


def begin(
    description: str | None,
    *split_options: str,
    seeds: int,
    epochs: int,
    size: int = 112,
    more: bool = False,
) -> tuple[argparse.Namespace, Path]:
    """Read the command line, and divide its folder unless that is done; return both.

    If there may be `more`, what it does not know is left in `options`.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--size", type=int, default=size)
    arguments, arguments.options = parser.parse_known_args()
    if arguments.options and not more:
        parser.error(f"unknown: {' '.join(arguments.options)}")
    arguments.out = arguments.out.resolve()
    data = arguments.out / "data"
    if not data.exists():
        command = [sys.executable, "-m", "alexnet_cli", "split", str(arguments.folder)]
        command += [*split_options, "--out", str(data), "--link", "symbolic"]
        subprocess.run(command, check=True)
    return arguments, data


def main() -> None:
    """Train what is not trained yet, and write the tables."""
    arguments, data = begin(__doc__, seeds=3, epochs=24)
    out, jobs = arguments.out, plan(arguments.seeds, arguments.size)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda job: run(job, data, out, arguments.epochs), jobs))
    (out / "table.md").write_text(tables(jobs, out))
    print(tables(jobs, out))


if __name__ == "__main__":
    main()
