"""What the demo says: headings, plain lines and one table; colour only for a terminal.

Every line is flushed, since children write to the same standard output.
"""

import os
import sys
from collections.abc import Sequence

BOLD, GREEN, RED, CYAN = "1", "32", "31", "36"


def colour(text: str, code: str) -> str:
    """`text` in colour when standard output is a terminal and NO_COLOR is not set."""
    if os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return text
    return f"\033[{code}m{text}\033[0m"


def heading(text: str) -> None:
    print(f"\n{colour(text, BOLD)}", flush=True)


def say(text: str) -> None:
    print(text, flush=True)


def good(text: str) -> None:
    say(colour(text, GREEN))


def table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a header row: first column to the left, the others to the right.

    The last row is the one to look at, so it is in colour.
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        first, *others = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        line = "  ".join([first, *others])
        if number == 0:
            line = colour(line, BOLD)
        elif number == len(rows) - 1:
            line = colour(line, CYAN)
        say(line)
