"""Learning curves: top-1 against photographs per class, by recipe, and from other weights.

    python -m benchmarks.learning FOLDER OUT [--epochs 60] [--size 112] [--seeds 1]

FOLDER holds class folders. Left in OUT/learning.png: all its classes, by the recipes `paper` and
`modern`. Right: two of its classes, by `modern` from nothing and from the weights of a model of all
the others, which never saw these two. A set of photographs holds the smaller ones; validation and
test images are the same for all. Trained as `benchmarks.ablations` does: one thread each, small
crops, and what is done is not done again.
"""

from __future__ import annotations

import json
import os
import random
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from alexnet_cli.runs.metrics import wilson_interval
from benchmarks.ablations import Job, begin, run, sizes

COUNTS = (20, 50, 100, 200, None)  # photographs of a class; None is all


@dataclass(frozen=True)
class Curve:
    """How one way to train fares: its panel, its classes and its options."""

    name: str
    panel: int
    classes: tuple[str, ...]
    options: tuple[str, ...]


def subset(data: Path, classes: Sequence[str], count: int | None, out: Path) -> Path:
    """Link `count` training photographs of each class, and all of the other splits."""
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
    """Draw mean top-1 with the 95 % interval of one test."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), dpi=150, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    curves = dict.fromkeys(curve for curve, _ in found)
    for curve, color in zip(curves, ("C1", "C0", "C0", "C2")):
        counts = [count for other, count in found if other == curve]
        places = [count or 460 for count in counts]
        means = [statistics.mean(top1 for top1, _ in found[curve, count]) for count in counts]
        n = found[curve, counts[0]][0][1]
        bounds = [wilson_interval(round(mean * n), n) for mean in means]
        spread = [[m - low for m, (low, _) in zip(means, bounds)]]
        spread += [[high - m for m, (_, high) in zip(means, bounds)]]
        axes = panels[curve.panel]
        axes.errorbar(places, means, spread, color=color, marker="o", capsize=3, label=curve.name)
        axes.set(xscale="log", xlabel="photographs per class", xlim=(17, 550), ylim=(0.2, 1))
        axes.set_title(f"{len(curve.classes)} classes" + (", new to it" if curve.panel else ""))
        axes.set_xticks(places, [str(count or "all") for count in counts])
        axes.minorticks_off()
        axes.grid(axis="y", color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower right")
    panels[0].set_ylabel("test top-1, one crop")
    figure.savefig(out / "learning.png")


def main() -> None:
    """Train what is not trained yet, and write table and picture."""
    arguments, data = begin(__doc__, "--test", "0.2", seeds=1, epochs=60)
    out = arguments.out
    classes = tuple(sorted(folder.name for folder in (data / "train").iterdir()))
    new, known = (classes[0], classes[-1]), classes[1:-1]
    small = sizes("paper", arguments.size)
    modern = ("--recipe", "modern", *small)
    teacher = Job("teacher", 0, modern)
    weights = ("--weights", str(out / "teacher-0" / "latest"))
    curves = (
        Curve("paper", 0, classes, ("--recipe", "paper", *small)),
        Curve("modern", 0, classes, modern),
        Curve("modern, from nothing", 1, new, modern),
        Curve(f"modern, from {len(known)} other classes", 1, new, (*modern, *weights)),
    )

    def train(job: Job, trained_on: Path) -> None:
        run(job, trained_on, out, arguments.epochs, split="test")

    train(teacher, subset(data, known, None, out))
    points = [
        (curve, count, Job(f"{curve.name}-{count or 'all'}", seed, curve.options))
        for seed in range(arguments.seeds)
        for count in COUNTS
        for curve in curves
    ]
    folders = {(c.classes, n): subset(data, c.classes, n, out) for c, n, _ in points}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda point: train(point[2], folders[point[0].classes, point[1]]), points))

    found: dict[tuple[Curve, int | None], list[tuple[float, int]]] = {}
    for curve, count, job in points:
        if (file := job.folder(out) / "evaluation.json").exists():
            score = json.loads(file.read_text())["one_crop"]
            found.setdefault((curve, count), []).append((score["top1"], score["n"]))
    for (curve, count), scores in found.items():
        listed = ", ".join(f"{top1:.3f}" for top1, _ in scores)
        print(f"| {curve.name} | {count or 'all'} | {listed} |")
    draw(found, out)


if __name__ == "__main__":
    main()
