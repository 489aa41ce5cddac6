"""The fidelity report: every constant of the paper beside a recipe's, with sources and reasons."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from alexnet_cli.recipes import LITERAL, Conv, Dense, Recipe, constants


@dataclass(frozen=True)
class Point:
    """One constant of the paper and what a recipe makes of it."""

    name: str  # as `--set` takes it: `conv2.bias`, `lrn_k`
    what: str
    paper: str
    source: str  # where the paper says so
    recipe: str
    because: str  # source and reason where the recipe differs; else empty

    @property
    def differs(self) -> bool:
        """Say whether the recipe departs from the paper here."""
        return self.paper != self.recipe


def report(recipe: Recipe) -> tuple[Point, ...]:
    """Hold every constant of `recipe` against the paper's."""
    papers, ours = constants(LITERAL), constants(recipe)
    points = []
    for name in papers | ours:
        paper, value = _text(papers.get(name, "–")), _text(ours.get(name, "–"))
        layer, _, constant = name.rpartition(".")
        kind = {"c": Conv, "f": Dense, "": Recipe}[layer[:1]]
        metadata = next(f.metadata for f in fields(kind) if f.name == constant)
        because = ""
        if paper != value:
            because = recipe.because.get(name) or recipe.because.get(constant, "")
        points.append(Point(name, metadata["what"], paper, metadata["source"], value, because))
    return tuple(points)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(_text, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value).lower()
