"""A terminal of a test: what would be seen of what was written."""

from __future__ import annotations

import io
import re
from typing import Final

from rich.console import Console

HIDE_CURSOR: Final = "\x1b[?25l"
SHOW_CURSOR: Final = "\x1b[?25h"

TOKEN: Final = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n]+)")


class Broken(io.StringIO):
    """A file that can be written to until it cannot."""

    broken: bool = False

    def write(self, text: str, /) -> int:
        if self.broken:
            raise OSError("the terminal is gone")
        return super().write(text)


class Terminal:
    """A console whose file is a terminal, and remembers all that was written."""

    def __init__(self, *, width: int = 80, terminal: bool = True) -> None:
        self.file: Broken = Broken()
        self.console: Console = Console(file=self.file, force_terminal=terminal, width=width, height=40, legacy_windows=False)

    @property
    def written(self) -> str:
        """Everything, as it was written."""
        return self.file.getvalue()

    @property
    def pictures(self) -> int:
        """How often the bar was drawn."""
        return self.written.count(" done")

    @property
    def lines(self) -> list[str]:
        """What can be seen now, without the lines that are empty."""
        return [line for line in screen(self.written) if line]

    @property
    def head(self) -> str:
        """What is beside the bar."""
        return re.sub(r"^[^\d]*", "", self.lines[0])


def screen(written: str) -> list[str]:
    """The lines that a terminal would show."""
    lines, row, column = [""], 0, 0
    for match in TOKEN.finditer(written):
        numbers, command, back, down, text = match.groups()
        if command == "A":
            row -= int(numbers or 1)
        elif command == "K":
            lines[row] = ""
        elif back:
            column = 0
        elif down:
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif text:
            lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + len(text) :]
            column += len(text)
    return [line.rstrip() for line in lines]
