"""Class and file names made safe for output: a name may hold all but a slash and a null character."""

from __future__ import annotations

from collections.abc import Sequence

MAX_LISTED = 8  # items of a list that are shown before "and N more"


def printable(name: object) -> str:
    """Return `name` safe for a terminal: no escape sequences, line breaks or direction marks."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode()
        for c in str(name)
    )


def list_first(names: Sequence[object], most: int = MAX_LISTED) -> str:
    """Return the first `most` of `names` in a line, and how many more there are."""
    shown = ", ".join(printable(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"


def csv_safe(name: object) -> str:
    """Return `name` safe for a spreadsheet: a formula gets an apostrophe in front."""
    shown = printable(name)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown


def markdown_safe(name: object) -> str:
    """Return `name` safe for a Markdown table, also where HTML is rendered."""
    return printable(name).replace("|", r"\|").replace("<", "&lt;")
