"""Small HTML tables, as which results show themselves in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from alexnet_cli.system.safe_names import printable

# Notebooks typeset $…$ in HTML unless a class says not to: that of MathJax 2, or of 3 and later.
PLAIN = "tex2jax_ignore mathjax_ignore"


def html_table(
    header: Sequence[object], rows: Iterable[Sequence[object]], caption: object = ""
) -> str:
    """Return an HTML table whose texts are shown as they are: no markup, no mathematics."""
    lines = [_row("th", header), *(_row("td", row) for row in rows)]
    title = f"<caption>{_safe(caption)}</caption>" if caption else ""
    return f'<table class="{PLAIN}">{title}{"".join(lines)}</table>'


def _row(cell: str, values: Sequence[object]) -> str:
    return f"<tr>{''.join(f'<{cell}>{_safe(value)}</{cell}>' for value in values)}</tr>"


def _safe(value: object) -> str:
    return escape(printable(value))
