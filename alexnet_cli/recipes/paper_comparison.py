"""A recipe beside the paper: each hyperparameter's two values, with sources and reasons."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from alexnet_cli.recipes.hyperparameters import Conv, Dense, Recipe, hyperparameter_values
from alexnet_cli.recipes.presets import LITERAL
from alexnet_cli.system.safe_names import markdown_safe


@dataclass(frozen=True)
class HyperparameterComparison:
    """One hyperparameter's value in the paper and in a recipe."""

    name: str  # as `--set` takes it: `conv2.bias`, `lrn_k`
    what: str
    paper: str
    source: str  # where the paper states its value, or that it does not have it
    recipe: str
    rationale: str  # source and reason where the recipe differs; else empty

    @property
    def differs(self) -> bool:
        """Whether the recipe's value is not the paper's."""
        return self.paper != self.recipe


def compare(recipe: Recipe) -> tuple[HyperparameterComparison, ...]:
    """Compare every hyperparameter of `recipe` with the paper's."""
    papers, ours = hyperparameter_values(LITERAL), hyperparameter_values(recipe)
    comparisons = []
    for name in papers | ours:
        paper, value = _text(papers.get(name, "–")), _text(ours.get(name, "–"))
        layer, _, short_name = name.rpartition(".")
        kind = {"c": Conv, "f": Dense, "": Recipe}[layer[:1]]
        metadata = next(f.metadata for f in fields(kind) if f.name == short_name)
        rationale = ""
        if paper != value:
            rationale = recipe.rationale.get(name) or recipe.rationale.get(short_name, "")
        comparisons.append(
            HyperparameterComparison(
                name, metadata["what"], paper, metadata["source"], value, rationale
            )
        )
    return tuple(comparisons)


def as_markdown(recipe: Recipe) -> str:
    """Return the comparison as a Markdown table, differences in bold."""
    lines = ["| hyperparameter | | the paper | source | this recipe | source and reason |"]
    lines.append("|---" * 6 + "|")
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
