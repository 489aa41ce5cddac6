"""Records of a run, stored in its folder: a row for each epoch, final scores, findings; and their text."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Annotated

from annotated_types import Ge, Le

from alexnet_cli.recipes import paper_comparison
from alexnet_cli.recipes.hyperparameters import Recipe
from alexnet_cli.runs.calibration import Calibration
from alexnet_cli.runs.metrics import Score
from alexnet_cli.system.safe_names import markdown_safe


@dataclass(frozen=True)
class EpochRow:
    """One epoch, as in the table on the screen and in history.csv.

    All is computed in the precision of the training (config.json); metrics.json is in float32.
    """

    epoch: int
    train_loss: float  # running mean, with augmentation, dropout and label smoothing
    train_top1: float  # likewise
    train_sample_loss: float  # of up to 128 training images after the epoch, measured as `val_loss`
    train_sample_top1: float
    val_loss: float  # of all validation images, without augmentation, dropout or label smoothing
    val_top1: Annotated[float, Ge(0), Le(1)]
    val_top5: float | None
    learning_rate: float  # of weights; some recipes multiply that of biases or slow layers
    images_per_second: float  # of training
    seconds: float  # of the whole epoch, validation included


@dataclass(frozen=True)
class FinalScore:
    """The scores of the weights of an epoch on all images, without augmentation or dropout.

    Computed in float32, as `evaluate` does, and without temperature scaling; in training with another
    precision, validation scores in the history of the same epoch may differ slightly.
    """

    epoch: int
    train: Score
    val: Score


@dataclass(frozen=True)
class Finding:
    """A problem that the diagnostics found, with the evidence and a remedy to try."""

    kind: str
    epoch: int
    evidence: str
    remedy: str


@dataclass(frozen=True)
class FinalMetrics:
    """The final metrics of a run, as in metrics.json."""

    best: FinalScore
    last: FinalScore
    calibration: Calibration | None  # of the best weights; None: no temperature was fitted
    seconds: float  # total duration of all epochs
    findings: tuple[Finding, ...]
    skipped: dict[str, str]  # images that became unreadable after the split: path → reason


def history_csv(rows: Sequence[EpochRow]) -> str:
    """Return the rows as CSV, with a header; None is an empty cell."""
    text = io.StringIO()
    names = [field.name for field in fields(EpochRow)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def report_markdown(recipe: Recipe, findings: Sequence[Finding]) -> str:
    """Return the report of a run: its problems, and its recipe compared with the paper."""
    lines = [f"# {recipe.name}: {recipe.summary}", "", "## Problems during training", ""]
    lines += [f"- {f.kind}, epoch {f.epoch}: {f.evidence}; {f.remedy}" for f in findings]
    if not findings:
        lines.append("The diagnostics found no problem.")
    lines += ["", "## Compared with the paper", "", "Differences are in bold."]
    text = "\n".join(map(markdown_safe, lines))
    return f"{text}\n\n{paper_comparison.as_markdown(recipe)}"
