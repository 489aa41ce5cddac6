"""Learning curves: top-1 accuracy by training images per class, from scratch and from other weights.

    python -m benchmarks.learning_curves FOLDER OUT [--weights RUN] [--epochs 60] [--seeds 1] [OPTIONS]

FOLDER holds class folders of images. OUT/learning.png is the result. Left: the recipes `paper` and
`modern`. Right, if there is a RUN, trained on other classes: `modern` from scratch, and what
`alexnet train --weights RUN` makes of its weights. Every larger training set contains the smaller
ones; validation and test images are the same for all. Trainings that ended are kept in OUT and not
repeated: take another OUT for another RUN. OPTIONS are those of `alexnet train`, such as
`--variant half-size`, for the trainings from scratch; those from RUN have the recipe of RUN, with
the variant `finetune`.
"""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass
from pathlib import Path

from alexnet_cli.runs.metrics import wilson_interval
from benchmarks.training_jobs import (
    TrainingJob,
    parse_arguments,
    run_all,
    split_once,
)

COUNTS = (20, 50, 100, 200, None)  # training images of a class; None is all


@dataclass(frozen=True)
class Curve:
    """One curve: its name and its options of `alexnet train`."""

    name: str
    options: tuple[str, ...]


PAPER, MODERN, FINETUNED = "paper", "modern", "from other weights"
COLORS = {PAPER: "C1", MODERN: "C0", FINETUNED: "C2"}
PANELS = {"recipes": (MODERN, PAPER), "initial weights": (FINETUNED, MODERN)}
Scores = dict[tuple[str, int | None], list[tuple[float, int]]]


def subset(data: Path, count: int | None, out: Path) -> Path:
    """Link `count` training images of each class, and all validation and test images."""
    folder = out / f"data-{count or 'all'}"
    for split in ("train", "val", "test"):
        for name in sorted(one.name for one in (data / split).iterdir()):
            files = sorted((data / split / name).iterdir())
            random.Random(0).shuffle(files)
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for file in files[: count if split == "train" else None]:
                link = folder / split / name / file.name
                if not link.is_symlink():
                    link.symlink_to(file.resolve())
    return folder


def draw(found: Scores, of_all: int, out: Path) -> None:
    """Draw the mean top-1 accuracy of the seeds, with the 95 % interval of one test.

    `found` has (top-1, test images) of each seed by curve and count; `of_all` is the number of
    training images of a class where the count is None.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    drawn = {curve for curve, _ in found}
    complete = {title: curves for title, curves in PANELS.items() if drawn.issuperset(curves)}
    panels = complete or {"": tuple(sorted(drawn))}
    figure = Figure(figsize=(4.5 * len(panels), 4), dpi=150, layout="constrained")
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, curves) in zip(all_axes, panels.items()):
        for curve in curves:
            counts = [count for other, count in found if other == curve]
            means = [statistics.mean(top1 for top1, _ in found[curve, count]) for count in counts]
            n = found[curve, counts[0]][0][1]
            bounds = [wilson_interval(round(mean * n), n) for mean in means]
            spread = [[m - low for m, (low, _) in zip(means, bounds)]]
            spread += [[high - m for m, (_, high) in zip(means, bounds)]]
            places = [count or of_all for count in counts]
            options = {"color": COLORS[curve], "marker": "o", "capsize": 3, "label": curve}
            axes.errorbar(places, means, spread, **options)
        axes.set(xscale="log", xlabel="training images per class", ylim=(0, 1), title=title)
        axes.set_xticks(places, [str(count or "all") for count in counts])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.grid(axis="y", color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower right")
    all_axes[0].set_ylabel("test top-1, one crop")
    figure.savefig(out / "learning.png")


def plan_curves(options: tuple[str, ...], weights: Path | None) -> list[Curve]:
    """Return the curves; one starts from the run `weights`, if there is one."""
    curves = [Curve(name, ("--recipe", name, *options)) for name in (MODERN, PAPER)]
    if weights:
        curves.insert(0, Curve(FINETUNED, ("--weights", str(weights.resolve()))))
    return curves


def main() -> None:
    """Train what is not trained yet, print the table and draw the curves."""
    arguments = parse_arguments(__doc__, seeds=1, epochs=60, paths=["weights"])
    out = arguments.out
    data = split_once(arguments.folder, out, "--test", "0.2")
    per_class = [len(list(folder.iterdir())) for folder in sorted((data / "train").iterdir())]
    of_all = round(statistics.mean(per_class))
    counts = [count for count in COUNTS if count is None or count < of_all]
    points = [
        (curve.name, count, TrainingJob(f"{curve.name}-{count or 'all'}", seed, curve.options))
        for curve in plan_curves(arguments.options, arguments.weights)
        for seed in range(arguments.seeds)
        for count in counts
    ]
    folders = {count: subset(data, count, out) for count in counts}
    jobs = [(job, folders[count]) for _, count, job in points]
    run_all(jobs, out, arguments.epochs, split="test")

    found: Scores = {}
    for curve, count, job in points:
        if evaluation := job.evaluation(out):
            score = evaluation["one_crop"]
            found.setdefault((curve, count), []).append((score["top1"], score["n"]))
    for (curve, count), scores in found.items():
        listed = ", ".join(f"{top1:.1%}" for top1, _ in scores)
        print(f"| {curve} | {count or 'all'} | {listed} |")
    if found:
        draw(found, of_all, out)


if __name__ == "__main__":
    main()
