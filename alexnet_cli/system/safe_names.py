"""Names from outside, of classes and files, may hold anything but a slash and a null character."""

from __future__ import annotations


def plain(name: object) -> str:
    """Make a name safe to show: no terminal escapes, no line breaks, no change of direction."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode()
        for c in str(name)
    )


def for_csv(name: object) -> str:
    """Make a name safe in a spreadsheet: what it would compute gets an apostrophe in front."""
    shown = plain(name)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown


def for_markdown(name: object) -> str:
    """Make a name safe in a table of Markdown, also where HTML is understood."""
    return plain(name).replace("|", r"\|").replace("<", "&lt;")
