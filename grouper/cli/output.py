"""What the command prints: one result on standard output, errors on standard error, and the line that shows a count falling."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, TextIO

from .values import age, lasting

if TYPE_CHECKING:
    from ..coordination.model import Entry, Status

__all__ = ["Answer", "CountLine", "describe", "document", "one_line", "table", "tell", "write"]


class Answer:
    """What a verb has to say: text, or a document for json; `trouble` is an error that comes with it, `signal` what ended it."""

    __slots__ = ("document", "signal", "status", "text", "trouble")

    def __init__(
        self,
        text: str = "",
        document: object = None,
        *,
        status: int = 0,
        trouble: Exception | None = None,
        signal: int | None = None,
    ) -> None:
        self.text: str = text
        self.document: object = document
        self.status: int = status
        self.trouble: Exception | None = trouble
        self.signal: int | None = signal


# --- printing


def write(answer: Answer, *, json: bool) -> None:
    """Print a result. Nobody has to read it: a closed pipe is no error. Raises: OSError."""
    text = answer.text
    if json and answer.document is not None:
        from json import dumps

        text = dumps(answer.document, ensure_ascii=False)
    if not text or sys.stdout is None:
        return
    try:
        _print(sys.stdout, text)
    except BrokenPipeError:
        silence(sys.stdout)
    except OSError:
        silence(sys.stdout)
        raise


def flush() -> None:
    """Write out what was printed; nobody has to read it."""
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError:
            silence(sys.stdout)


def tell(text: str) -> None:
    """Print an error, as one line."""
    if sys.stderr is None:
        return
    try:
        _print(sys.stderr, f"grouper: {one_line(text)}")
    except OSError:
        silence(sys.stderr)


def silence(file: TextIO) -> None:
    """Let the interpreter not try once more, at its end, to write what could not be written."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, file.fileno())
        os.close(null)
    except (OSError, ValueError):  # a file without a descriptor
        pass


def one_line(text: str) -> str:
    """The text with nothing in it that would begin another line, or move a terminal's cursor."""
    return "".join([char if char.isprintable() else " " for char in " ".join(text.split())])


def _print(file: TextIO, text: str) -> None:
    file.write(f"{_printable_by(file, text)}\n")
    file.flush()


def _printable_by(file: TextIO, text: str) -> str:
    encoding = file.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


# --- values


def _counted(members: int) -> str:
    return "1 member" if members == 1 else f"{members} members"


def document(status: Status, **more: object) -> dict[str, object]:
    """What json has of a group."""
    return {
        "name": status.name,
        "spec": {"ttl": None if status.ttl is None else lasting(status.ttl)},
        "status": {
            "counter": status.counter,
            "phase": status.phase.value,
            "members": [_member(entry) for entry in status.members],
            "lost": status.lost,
        },
        **more,
    }


def _member(entry: Entry) -> dict[str, object]:
    return {"id": entry.id, "host": entry.host, "pid": entry.pid, "since": round(entry.since, 3)}


def describe(status: Status) -> str:
    """A group for a person: what it counts, and who is stuck."""
    now = time.time()
    members = len(status.members)
    rows = [
        ("name", status.name),
        ("phase", status.phase.value),
        ("counter", f"{status.counter}" + f" ({_counted(members)}, {status.counter - members} that nobody owns)" * bool(members)),
        ("lost", str(status.lost)),
        ("ttl", "none" if status.ttl is None else lasting(status.ttl)),
        ("age", age(now - status.created)),
    ]
    text = table(rows)
    if not members:
        return text
    who = [(entry.id, entry.host, str(entry.pid), age(now - entry.since)) for entry in status.members]
    return f"{text}\n\n{table([('MEMBER', 'HOST', 'PID', 'AGE'), *who])}"


def table(rows: Iterable[Sequence[str]]) -> str:
    """Rows in columns."""
    clean = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*clean, strict=True)]
    lines = ["  ".join([cell.ljust(width) for cell, width in zip(row, widths, strict=True)]).rstrip() for row in clean]
    return "\n".join(lines)


# --- a count that falls

BACK: Final = "\r\x1b[K"
"""What takes a line from a terminal."""


class CountLine:
    """One line of a file that shows what is left, if that is a terminal; gone at the end of the block."""

    def __init__(self, file: TextIO | None) -> None:
        self._file: TextIO | None = file if file is not None and file.isatty() and os.environ.get("TERM") != "dumb" else None
        self._shown = ""
        self._most = 0

    def __enter__(self) -> CountLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._draw("")

    def show(self, status: Status) -> None:
        """Show what is left."""
        if self._file is None or not _is_ours(self._file):
            return
        self._most = max(self._most, status.counter)
        text = (
            f"{status.name}: {status.counter} of {self._most} left" if status.counter else f"{status.name}: nothing was added yet"
        )
        if status.members:
            text += f", {_counted(len(status.members))}"
        if status.lost:
            text += f", {status.lost} lost"
        text = text[: _width(self._file)]
        if text != self._shown:
            self._draw(text)

    def _draw(self, text: str) -> None:
        assert self._file is not None
        self._shown = text
        try:
            self._file.write(_printable_by(self._file, BACK + text))
            self._file.flush()
        except OSError:  # the terminal is gone; the wait is not
            self._file = None
            self._shown = ""


def _is_ours(terminal: TextIO) -> bool:
    """Whether a terminal is this process's to write to, and not a shell's that has put this into the background."""
    try:
        return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except (AttributeError, OSError, ValueError):  # it is not what controls this process; or this is another system
        return True


def _width(terminal: TextIO) -> int:
    """What fits in a line, less a column: some terminals wrap at the last. A terminal that does not tell has 80."""
    try:
        return (os.get_terminal_size(terminal.fileno()).columns or 80) - 1
    except (OSError, ValueError):
        return 79
