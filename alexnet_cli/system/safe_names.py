"""Class and file names made safe for output: a name may hold all but a slash and a null character."""

from __future__ import annotations


def printable(name: object) -> str:
    """Return `name` safe for a terminal: no escape sequences, line breaks or direction marks."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode()
        for c in str(name)
    )


def csv_safe(name: object) -> str:
    """Return `name` safe for a spreadsheet: a formula gets an apostrophe in front."""
    shown = printable(name)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown


def markdown_safe(name: object) -> str:
    """Return `name` safe for a Markdown table, also where HTML is rendered."""
    return printable(name).replace("|", r"\|").replace("<", "&lt;")
