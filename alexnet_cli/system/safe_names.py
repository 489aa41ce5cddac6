"""Names from outside, of classes and files, may hold anything but a slash and a null character."""

from __future__ import annotations


def printable(name: object) -> str:
    """Make a name safe to show: no terminal escapes, no line breaks, no change of direction."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode()
        for c in str(name)
    )


def csv_safe(name: object) -> str:
    """Make a name safe in a spreadsheet: what it would compute gets an apostrophe in front."""
    shown = printable(name)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown


def markdown_safe(name: object) -> str:
    """Make a name safe in a table of Markdown, also where HTML is understood."""
    return printable(name).replace("|", r"\|").replace("<", "&lt;")
