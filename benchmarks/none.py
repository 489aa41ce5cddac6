"""What "none of these" catches, and what it costs: photographs of no class beside the model's own.

    python -m benchmarks.none RUN FOLDER [SPLIT]

FOLDER holds pictures that belong to none of the run's classes; SPLIT of the run's own images is `val`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from alexnet_cli.inference import evaluation, prediction
from alexnet_cli.inference.results import Prediction


def main() -> None:
    """Print for each bound the shares that are refused."""
    run, folder, *split = sys.argv[1:]
    report = evaluation.evaluate(models=[Path(run)], split=split[0] if split else None)
    foreign = [
        outcome.probabilities[0]
        for outcome in prediction.predict([Path(folder)], models=[Path(run)], top=1)
        if isinstance(outcome, Prediction)
    ]
    print(f"{report.score.n} own images, {len(foreign)} of no class; top-1 {report.score.top1:.3f}")
    print(
        "| none below | of no class, refused | own, refused | own and right, refused | top-1 of the rest |"
    )
    print("|---|---|---|---|---|")
    for cost in report.refusals:
        caught = sum(probability < cost.below for probability in foreign) / len(foreign)
        own, right = cost.n_refused / cost.n, cost.n_refused_right / cost.n
        rest = "" if cost.top1 is None else f"{cost.top1:.3f}"
        print(f"| {cost.below} | {caught:.1%} | {own:.1%} | {right:.1%} | {rest} |")


if __name__ == "__main__":
    main()
