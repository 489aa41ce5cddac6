"""Turn a terminal's screen, with its colors, into the SVG that docs/ shows.

tmux capture-pane -e -p -S -19 | python docs/terminal.py "make demo" > docs/demo.svg
"""

import io
import re
import sys

from rich.console import CONSOLE_SVG_FORMAT, Console
from rich.text import Text

# Rich's own frame loads fonts from the network, which a page with the picture may not do.
WITHOUT_WEB_FONTS = re.sub(r"@font-face {{.*?}}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
FRAME = re.sub(r"font-family: [^;]*;", "font-family: monospace;", WITHOUT_WEB_FONTS)

lines = [Text.from_ansi(line) for line in sys.stdin.read().rstrip().splitlines()]
width = max(len(line.plain.rstrip()) for line in lines) + 1
console = Console(record=True, width=width, file=io.StringIO())
for line in lines:
    console.print(line, soft_wrap=True)
print(console.export_svg(title=sys.argv[1], code_format=FRAME))
