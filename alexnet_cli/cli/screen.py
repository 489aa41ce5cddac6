"""How lines, tables, progress bars and skipped files are shown on the screen.

Class and file names are never interpreted as markup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.segment import Segments
from rich.table import Column, Table
from rich.text import Text

from alexnet_cli.data.manifest import Rejected
from alexnet_cli.system.safe_names import MAX_LISTED, printable


@contextmanager
def progress_bar(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar until done; yields the function to call with (done, total)."""
    with stage_bar(console, what) as progress:
        yield lambda done, total: progress(what, done, total)


@contextmanager
def stage_bar(console: Console, first: str = "") -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar for stages of work; yields the function to call with (stage, done, total)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(first, total=None)
        yield lambda stage, done, total: progress.update(
            task, description=stage, completed=done, total=total
        )


def new_table(first: str, *numbers: str) -> Table:
    """Return a table with a column of names and columns of numbers."""
    heads = [Column(cell(name), justify="right") for name in numbers]
    return Table(Column(cell(first)), *heads)


def show_table(console: Console, table: Table) -> None:
    """Print a table, at least 80 columns wide, as numbers must not be cut."""
    options = console.options.update(width=max(console.width, 80))
    console.print(Segments(console.render(table, options)), crop=False)


def print_line(console: Console, line: str, style: str = "") -> None:
    """Print a line, with control characters escaped."""
    # soft_wrap, as a path must not be broken or cut at the edge of the screen
    console.print(Text(printable(line), style=style), soft_wrap=True)


def cell(name: object) -> Text:
    """Return a table cell for the name of a class or file."""
    return Text(printable(name))


def show_skipped(console: Console, rejected: Sequence[Rejected], all_in: str = "") -> None:
    """Print the files that are not readable images, with the reason; `all_in` is where all are listed."""
    for item in rejected[:MAX_LISTED]:
        print_line(console, f"skipped: {rejection(item)}", "yellow")
    if len(rejected) > MAX_LISTED:
        more = f"and {len(rejected) - MAX_LISTED:,} more skipped"
        print_line(console, f"{more}; {all_in} lists all" if all_in else more)


def rejection(rejected: Rejected) -> str:
    """Return the file and the reason as one line."""
    return f"{rejected.path}: {rejected.reason}"
