"""Top-1 on photographs that chose nothing: a split with a test set, and several seeds.

    python -m benchmarks.seeds FOLDER OUT [--seeds 3] [--epochs 90] [--size 224] [OPTIONS of train]

FOLDER holds class folders; a tenth of them validates, a tenth tests. Each seed trains once and is
tested once, with the weights of the epoch that validation chose. Trained as `benchmarks.ablations`
does, one thread each; killed, it goes on where it was. OPTIONS tell what a change brings, such as
`--variant one-tower`; what is changed needs its own OUT.
"""

from __future__ import annotations

import json
import os
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from alexnet_cli.runs.metrics import wilson_interval
from benchmarks.ablations import Job, begin, run, sizes


def interval(top1: float, n: int) -> str:
    """Write an accuracy over `n` photographs with its 95 % interval."""
    low, high = wilson_interval(round(top1 * n), n)
    return f"{top1:.3f} ({low:.3f} to {high:.3f})"


def row(job: Job, out: Path) -> dict[str, Any]:
    """Read what a training came to."""
    folder = job.folder(out)
    best = json.loads((folder / "latest" / "metrics.json").read_text())["best"]
    test = json.loads((folder / "evaluation.json").read_text())
    scores = {"validation": best["val"], "one crop": test["one_crop"], "ten": test["ten_crop"]}
    return {"epoch": best["epoch"], "train": best["train"]["top1"], **scores}


def main() -> None:
    """Train and test what is not done yet, and print the table."""
    arguments, data = begin(__doc__, "--test", "0.1", seeds=3, epochs=90, size=224, more=True)
    options = (*sizes("modern", arguments.size), *arguments.options)
    jobs = [Job("seed", seed, options) for seed in range(arguments.seeds)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda job: run(job, data, arguments.out, arguments.epochs, "test"), jobs))
    rows = [row(job, arguments.out) for job in jobs]
    print("| seed | best epoch | train top-1 | validation | test, one crop | test, ten crops |")
    print("|---|---|---|---|---|---|")
    kinds = ("validation", "one crop", "ten")
    for job, found in zip(jobs, rows):
        cells = [interval(found[kind]["top1"], found[kind]["n"]) for kind in kinds]
        print(f"| {job.seed} | {found['epoch']} | {found['train']:.3f} | {' | '.join(cells)} |")
    means = {kind: statistics.mean(found[kind]["top1"] for found in rows) for kind in kinds}
    cells = [interval(mean, rows[0][kind]["n"]) for kind, mean in means.items()]
    print(f"| mean | | | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
