"""Refusing to predict: which images of no class are refused, and which of the model's own are too.

    python -m benchmarks.none_of_these RUN FOLDER [SPLIT]

FOLDER holds images that belong to none of the run's classes. SPLIT is the split of the run's own
images, by default `test` where there is one, else `val`.
"""

from __future__ import annotations

import sys

import alexnet_cli as alexnet


def main() -> None:
    """Print the share of refused images for each threshold."""
    run, folder, *split = sys.argv[1:]
    model = alexnet.load(run)
    report = model.evaluate(split=split[0] if split else None)
    foreign = [
        outcome.probability
        for outcome in model.predict_files([folder], top=1)
        if isinstance(outcome, alexnet.Prediction)
    ]
    score = report.score
    print(f"{score.n} own images, top-1 {score.top1:.1%}; {len(foreign)} images of no class")
    print(
        "| threshold | images of no class refused | own images refused | own images refused though "
        "predicted correctly | top-1 of the remaining own images |"
    )
    print("|---|---|---|---|---|")
    for cost in report.details.selective_accuracy:
        caught = sum(probability < cost.threshold for probability in foreign) / len(foreign)
        own, right = cost.n_below / cost.n, cost.n_below_correct / cost.n
        rest = "" if cost.top1 is None else f"{cost.top1:.1%}"
        print(f"| {cost.threshold} | {caught:.1%} | {own:.1%} | {right:.1%} | {rest} |")


if __name__ == "__main__":
    main()
