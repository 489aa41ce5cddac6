"""Top-1 accuracy on held-out images, by seed.

    python -m benchmarks.held_out_accuracy FOLDER OUT [--seeds 3] [--epochs 90] [OPTIONS]

FOLDER holds class folders of images: a tenth is for validation, a tenth for testing. Each seed trains
once, and is tested once with the weights of the epoch that validation chose. OPTIONS are those of
`alexnet train`, such as `--variant one-tower`; use another OUT for other options. An interrupted
training resumes.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import alexnet_cli as alexnet
from alexnet_cli.runs.metrics import wilson_interval
from benchmarks.training_jobs import (
    TrainingJob,
    parse_arguments,
    run_all,
    split_once,
)

KINDS = ("validation", "test, one crop", "test, ten crops")


def interval(top1: float, n: int) -> str:
    """Return the accuracy over `n` images with its 95 % interval, as text."""
    low, high = wilson_interval(round(top1 * n), n)
    return f"{top1:.1%} ({low:.1%} to {high:.1%})"


def read_result(job: TrainingJob, out: Path) -> dict[str, Any]:
    """Return the best epoch, its training accuracy, and (top-1, images) of each of `KINDS`."""
    best, test = alexnet.Run(job.run_folder(out)).metrics.best, job.evaluation(out)
    if test is None:
        raise SystemExit(f"{job.folder(out)}: has no evaluation")
    scores = [(best.val.top1, best.val.n)]
    scores += [(test[crops]["top1"], test[crops]["n"]) for crops in ("one_crop", "ten_crop")]
    return {"epoch": best.epoch, "train": best.train.top1, **dict(zip(KINDS, scores))}


def main() -> None:
    """Train and test what is not done yet, and print the table."""
    arguments = parse_arguments(__doc__, seeds=3, epochs=90)
    out = arguments.out
    data = split_once(arguments.folder, out, "--test", "0.1")
    jobs = [TrainingJob("seed", seed, arguments.options) for seed in range(arguments.seeds)]
    run_all([(job, data) for job in jobs], out, arguments.epochs, split="test")
    results = [read_result(job, out) for job in jobs]
    print(f"| seed | best epoch | train top-1 | {' | '.join(KINDS)} |")
    print("|---|---|---|---|---|---|")
    for job, found in zip(jobs, results):
        cells = [interval(*found[kind]) for kind in KINDS]
        print(f"| {job.seed} | {found['epoch']} | {found['train']:.1%} | {' | '.join(cells)} |")
    means = {kind: statistics.mean(found[kind][0] for found in results) for kind in KINDS}
    cells = [interval(mean, results[0][kind][1]) for kind, mean in means.items()]
    print(f"| mean | | | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
