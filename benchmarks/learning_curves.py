"""Learning curves: top-1 accuracy by training images per class, recipe and initial weights.

    python -m benchmarks.learning_curves FOLDER OUT [--epochs 60] [--seeds 1] [OPTIONS]

FOLDER holds class folders of images. OUT/learning.png is the result. Left: all classes, with the
recipes `paper` and `modern`. Right: two of the classes, with `modern` from scratch and from the
weights of a model that was trained on all the other classes. Every larger training set contains the
smaller ones; validation and test images are the same for all. Trainings that ended are kept in OUT
and not repeated. OPTIONS are those of `alexnet train`, for every training, such as
`--variant half-size`.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
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
    """One curve: its name, panel and classes, and its options of `alexnet train`."""

    name: str
    panel: int
    classes: tuple[str, ...]
    options: tuple[str, ...]


def subset(data: Path, classes: Sequence[str], count: int | None, out: Path) -> Path:
    """Link `count` training images of each class, and all validation and test images."""
    folder = out / f"data-{len(classes)}-{count or 'all'}"
    for split in ("train", "val", "test"):
        for name in classes:
            files = sorted((data / split / name).iterdir())
            random.Random(0).shuffle(files)
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for file in files[: count if split == "train" else None]:
                link = folder / split / name / file.name
                if not link.is_symlink():
                    link.symlink_to(file.resolve())
    return folder


def draw(found: dict[tuple[Curve, int | None], list[tuple[float, int]]], out: Path) -> None:
    """Draw the mean top-1 accuracy of the seeds, with the 95 % interval of one test."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(9, 4), dpi=150, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    curves = dict.fromkeys(curve for curve, _ in found)
    for curve in curves:
        color = "C1" if "paper" in curve.name else "C2" if "other" in curve.name else "C0"
        counts = [count for other, count in found if other == curve]
        places = [count or 460 for count in counts]
        means = [statistics.mean(top1 for top1, _ in found[curve, count]) for count in counts]
        n = found[curve, counts[0]][0][1]
        bounds = [wilson_interval(round(mean * n), n) for mean in means]
        spread = [[m - low for m, (low, _) in zip(means, bounds)]]
        spread += [[high - m for m, (_, high) in zip(means, bounds)]]
        axes = panels[curve.panel]
        axes.errorbar(places, means, spread, color=color, marker="o", capsize=3, label=curve.name)
        axes.set(xscale="log", xlabel="training images per class", xlim=(17, 550), ylim=(0, 1))
        axes.set_title(f"{len(curve.classes)} classes")
        axes.set_xticks(places, [str(count or "all") for count in counts])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.grid(axis="y", color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower right")
    panels[0].set_ylabel("test top-1, one crop")
    figure.savefig(out / "learning.png")


def plan_curves(classes: tuple[str, ...], options: tuple[str, ...], teacher: Path) -> list[Curve]:
    """Return all curves; the last one starts from the weights of the run `teacher`."""
    new, known = (classes[0], classes[-1]), classes[1:-1]
    modern = ("--recipe", "modern", *options)
    transfer = (*modern, "--weights", str(teacher))
    return [
        Curve("paper", 0, classes, ("--recipe", "paper", *options)),
        Curve("modern", 0, classes, modern),
        Curve("modern, from scratch", 1, new, modern),
        Curve(f"modern, from {len(known)} other classes", 1, new, transfer),
    ]


def main() -> None:
    """Train what is not trained yet, print the table and draw the curves."""
    arguments = parse_arguments(__doc__, seeds=1, epochs=60)
    out, epochs = arguments.out, arguments.epochs
    data = split_once(arguments.folder, out, "--test", "0.2")
    classes = tuple(sorted(folder.name for folder in (data / "train").iterdir()))
    modern = ("--recipe", "modern", *arguments.options)
    teacher = TrainingJob("teacher", 0, modern)
    run_all([(teacher, subset(data, classes[1:-1], None, out))], out, epochs, split="test")

    curves = plan_curves(classes, arguments.options, teacher.run_folder(out))
    points = [
        (curve, count, TrainingJob(f"{curve.name}-{count or 'all'}", seed, curve.options))
        for seed in range(arguments.seeds)
        for count in COUNTS
        for curve in curves
    ]
    jobs = [(job, subset(data, curve.classes, count, out)) for curve, count, job in points]
    run_all(jobs, out, epochs, split="test")

    found: dict[tuple[Curve, int | None], list[tuple[float, int]]] = {}
    for curve, count, job in points:
        if evaluation := job.evaluation(out):
            score = evaluation["one_crop"]
            found.setdefault((curve, count), []).append((score["top1"], score["n"]))
    for (curve, count), scores in found.items():
        listed = ", ".join(f"{top1:.1%}" for top1, _ in scores)
        print(f"| {curve.name} | {count or 'all'} | {listed} |")
    draw(found, out)


if __name__ == "__main__":
    main()
