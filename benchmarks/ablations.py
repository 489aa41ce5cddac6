"""The paper's ablations, all recipes, and seeds for an ensemble, on one folder of images.

    python -m benchmarks.ablations FOLDER OUT [--seeds 3] [--epochs 24] [OPTIONS]

FOLDER holds class folders. OUT/table.md is the result; a training that ended is kept in OUT and not
repeated, one that was interrupted resumes. OPTIONS are those of `alexnet train`, for every training:
with `--variant half-size` all take a quarter of the time.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import alexnet_cli as alexnet
from benchmarks.training_jobs import (
    TrainingJob,
    parse_arguments,
    run_all,
    split_once,
)

# Increase of the top-1 error without each, in points, on ILSVRC-2010 (sections 3.2 to 4.1, 7)
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
# A run this short ends before the validation error shows when to drop the learning rate.
BASE = ("--recipe", "paper", "--set", "drop_at=0.8")


@dataclass(frozen=True)
class Result:
    """The result of a training; errors and accuracies are fractions."""

    val_error: float  # mean of the last three epochs, as single epochs vary by a point or two
    train_error: float  # of the last epoch, with augmentation and dropout
    best_epoch: int
    one_crop: float  # top-1 of the best epoch
    ten_crop: float
    minutes: float


def plan(seeds: int, options: tuple[str, ...]) -> list[TrainingJob]:
    """Return all trainings with `options`: first those of the first seed, then of the second, …"""
    jobs = []
    for seed in range(seeds):
        jobs.append(TrainingJob("paper", seed, (*BASE, *options)))
        jobs += [TrainingJob(v, seed, (*BASE, "--variant", v, *options)) for v in PAPER]
    for seed in range(max(seeds, 1), 3):  # for the ensemble of three
        jobs.append(TrainingJob("paper", seed, (*BASE, *options)))
    for name, recipe, variants in (
        ("released-2012, biases 0.1", "released-2012", ("--variant", "biases-0.1")),
        ("caffe", "caffe", ()),
        ("notebook", "notebook", ()),
        ("literal", "literal", ()),
        ("released-2012", "released-2012", ()),
    ):
        share = 0.25 if name in ("literal", "released-2012") else 1.0
        jobs.append(TrainingJob(name, 0, ("--recipe", recipe, *variants, *options), share))
    return jobs


def read_result(job: TrainingJob, out: Path) -> Result | None:
    """Return the result of a training; None if it has not ended."""
    scores = job.evaluation(out)
    if scores is None:
        return None
    history = alexnet.Run(job.run_folder(out)).history
    return Result(
        val_error=statistics.mean(1 - row.val_top1 for row in history[-3:]),
        train_error=1 - history[-1].train_top1,
        best_epoch=scores["members"][0]["epoch"],
        one_crop=scores["one_crop"]["top1"],
        ten_crop=scores["ten_crop"]["top1"],
        minutes=sum(row.seconds for row in history) / 60,
    )


def ablation_table(results: dict[tuple[str, int], Result]) -> list[str]:
    """Return the rows of a Markdown table: each variant beside the paper's network and result."""
    base = [100 * result.val_error for (name, _), result in results.items() if name == "paper"]
    lines = [
        "| | seeds | validation error, % | points more than the paper's network | in the paper |",
        "|---|---|---|---|---|",
    ]
    for name in ("paper", *PAPER):
        errors = [100 * result.val_error for (n, _), result in results.items() if n == name]
        if not errors:
            continue
        text = f"{statistics.mean(errors):.1f}"
        text += f" ({min(errors):.1f} to {max(errors):.1f})" if len(errors) > 1 else ""
        delta = difference(errors, base) if name != "paper" and base else ""
        lines.append(f"| {name} | {len(errors)} | {text} | {delta} | {PAPER.get(name, '')} |")
    return lines


def difference(errors: Sequence[float], base: Sequence[float]) -> str:
    """Return the difference of two means, with its 95 % interval if both have several values."""
    text = f"{statistics.mean(errors) - statistics.mean(base):+.1f}"
    if min(len(errors), len(base)) == 1:
        return text
    return f"{text} ± {welch_margin(errors, base):.1f}"


def welch_margin(one: Sequence[float], two: Sequence[float]) -> float:
    """Return half the width of the 95 % interval of the difference of two means (Welch 1947).

    The two samples, of at least two values each, may have different variances.
    """
    parts = [(statistics.variance(values) / len(values), len(values) - 1) for values in (one, two)]
    variance = sum(part for part, _ in parts)
    if not variance:
        return 0.0
    freedom = variance**2 / sum(part**2 / n for part, n in parts)  # Satterthwaite 1946
    return student_t95(freedom) * math.sqrt(variance)


def student_t95(freedom: float) -> float:
    """Return the value that |t| exceeds with probability 5 %; `freedom`: 1 or more, also fractions.

    In the angle θ of t = √ν tan θ, the density of Student's t is proportional to cos(θ)^(ν − 1).
    """
    edges = np.linspace(0, np.pi / 2, 100_001)
    middles = (edges[1:] + edges[:-1]) / 2
    area = np.concatenate([[0], np.cumsum(np.cos(middles) ** (freedom - 1))])
    return math.sqrt(freedom) * math.tan(np.interp(0.95 * area[-1], area, edges))


def recipe_table(results: dict[tuple[str, int], Result]) -> list[str]:
    """Return the rows of a Markdown table of all recipes and of the seeds of `paper`."""
    lines = [
        "| recipe | best epoch | top-1, one crop | ten crops | training error | minutes |",
        "|---|---|---|---|---|---|",
    ]
    for (name, seed), r in results.items():
        if name not in PAPER:
            scores = f"{r.one_crop:.1%} | {r.ten_crop:.1%} | {r.train_error:.1%}"
            lines.append(f"| {name}, seed {seed} | {r.best_epoch} | {scores} | {r.minutes:.0f} |")
    return lines


def main() -> None:
    """Train what is not trained yet, and write the tables."""
    arguments = parse_arguments(__doc__, seeds=3, epochs=24)
    out, jobs = arguments.out, plan(arguments.seeds, arguments.options)
    data = split_once(arguments.folder, out)
    run_all([(job, data) for job in jobs], out, arguments.epochs)
    results = {(job.name, job.seed): result for job in jobs if (result := read_result(job, out))}
    text = "\n".join([*ablation_table(results), "", *recipe_table(results)]) + "\n"
    (out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
