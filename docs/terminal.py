"""Turn a terminal's screen, with its colors, into the SVG that the README shows.

tmux capture-pane -e -p -S -300 | python docs/terminal.py "make demo" > docs/demo.svg
"""

import io
import sys

from rich.console import Console
from rich.text import Text

lines = [Text.from_ansi(line) for line in sys.stdin.read().rstrip().splitlines()]
width = max(len(line.plain.rstrip()) for line in lines) + 1
console = Console(record=True, width=width, file=io.StringIO())
for line in lines:
    console.print(line, soft_wrap=True)
print(console.export_svg(title=sys.argv[1]))
