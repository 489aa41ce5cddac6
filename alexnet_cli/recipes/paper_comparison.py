"""The fidelity report: every constant of the paper beside a recipe's, with sources and reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from alexnet_cli.recipes.hyperparameters import Conv, Dense, Recipe, hyperparameter_values
from alexnet_cli.recipes.presets import LITERAL
from alexnet_cli.runs.records import Finding
from alexnet_cli.system.safe_names import markdown_safe
from alexnet_cli.training.diagnostics import PATIENCE_EPOCHS, PATIENCE_STEPS


@dataclass(frozen=True)
class HyperparameterComparison:
    """One constant of the paper and what a recipe makes of it."""

    name: str  # as `--set` takes it: `conv2.bias`, `lrn_k`
    what: str
    paper: str
    source: str  # where the paper says so
    recipe: str
    rationale: str  # source and reason where the recipe differs; else empty

    @property
    def differs(self) -> bool:
        """Say whether the recipe departs from the paper here."""
        return self.paper != self.recipe


def compare(recipe: Recipe) -> tuple[HyperparameterComparison, ...]:
    """Hold every constant of `recipe` against the paper's."""
    papers, ours = hyperparameter_values(LITERAL), hyperparameter_values(recipe)
    points = []
    for name in papers | ours:
        paper, value = _text(papers.get(name, "–")), _text(ours.get(name, "–"))
        layer, _, constant = name.rpartition(".")
        kind = {"c": Conv, "f": Dense, "": Recipe}[layer[:1]]
        metadata = next(f.metadata for f in fields(kind) if f.name == constant)
        because = ""
        if paper != value:
            because = recipe.rationale.get(name) or recipe.rationale.get(constant, "")
        points.append(
            HyperparameterComparison(
                name, metadata["what"], paper, metadata["source"], value, because
            )
        )
    return tuple(points)


def as_markdown(recipe: Recipe, findings: Sequence[Finding]) -> str:
    """Write the report of a run: what was found wrong with its learning, and every constant."""
    lines = [markdown_safe(f"# {recipe.name}: {recipe.summary}"), "", "## Does it learn?", ""]
    lines += [
        markdown_safe(f"- {f.kind}, epoch {f.epoch}: {f.evidence}; {f.remedy}") for f in findings
    ]
    if not findings:
        since = f"most that could is looked for from epoch {PATIENCE_EPOCHS}"
        lines.append(f"Nothing was found that says otherwise; {since}, step {PATIENCE_STEPS} on.")
    lines += ["", "## Fidelity", "", "What differs from the paper is in bold.", ""]
    lines += ["| constant | | the paper | | here | source and reason |", "|---" * 6 + "|"]
    for point in compare(recipe):
        here = f"**{point.recipe}**" if point.differs else point.recipe
        cells = (f"`{point.name}`", point.what, point.paper, point.source, here, point.rationale)
        lines.append(f"| {' | '.join(map(markdown_safe, cells))} |")
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(_text, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value).lower()
