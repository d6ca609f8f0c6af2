"""`grouper waitgroup wait`: until others are done, a timeout, a signal; and the line that shows the count falling."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from grouper.cli import output
from grouper.cli.output import CountLine
from grouper.coordination import Entry, Status
from grouper.coordination.sqlite.store import InlineStore

from .conftest import Command, Starting, Terminal, always
from .screen import screen

pytestmark = pytest.mark.real_time


# --- woken by other processes


@pytest.mark.parametrize("words", [[], ["--timeout", "30m"]])
def test_wait_ends_when_another_process_is_done(
    command: Command, start_either: Starting, terminal: Terminal, words: list[str]
) -> None:
    """Whatever time it has left."""
    command("create", "batch", "--count", 2)
    waiting = start_either("wait", "batch", *words, stderr=terminal.file)
    terminal.read_until("batch: 2 of 2 left")
    command("done", "batch")
    terminal.read_until("batch: 1 of 2 left")
    command("done", "batch")
    found = waiting.end()
    assert (found.status, found.out) == (0, "batch: Done\n")
    assert terminal.lines() == []


def test_wait_ends_when_the_group_is_deleted(command: Command, start_either: Starting, terminal: Terminal) -> None:
    """With a status of its own: nobody was done."""
    command("create", "batch", "--count", 1)
    waiting = start_either("wait", "batch", stderr=terminal.file)
    terminal.read_until("1 of 1 left")
    command("delete", "batch")
    found = waiting.end()
    assert (found.status, found.out) == (7, "")
    (line,) = terminal.lines()
    assert line.startswith("grouper: wait group 'batch' was deleted")


def test_wait_ends_when_a_member_is_killed(command: Command, start: Starting, terminal: Terminal) -> None:
    """The member is lost, which is neither success nor a wait without end."""
    command("create", "batch")
    member = start("run", "batch", "--", "sh", "-c", "echo here; cat")
    assert member.line() == "here\n"
    waiting = start("wait", "batch", stderr=terminal.file)
    terminal.read_until("batch: 1 of 1 left, 1 member")
    member.process.kill()
    found = waiting.end()
    assert (found.status, found.out) == (5, "batch: Done, 1 lost\n")


def test_waiter_that_came_first_sees_the_round(command: Command, start: Starting, terminal: Terminal) -> None:
    """If it waits for the start, as a group is Done before anything is added."""
    command("create", "batch")
    waiting = start("wait", "batch", "--started", stderr=terminal.file)
    terminal.read_until("batch: nothing was added yet")
    command("add", "batch")
    terminal.read_until("batch: 1 of 1 left")
    command("done", "batch")
    assert waiting.end().status == 0


# --- signals


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_signal_ends_a_wait(
    command: Command, start_either: Starting, terminal: Terminal, number: signal.Signals, status: int
) -> None:
    """Its line is taken from the terminal. Of SIGINT the process dies, so that the script around it does: 130 in a shell."""
    command("create", "batch", "--count", 1)
    waiting = start_either("wait", "batch", stderr=terminal.file)
    terminal.read_until("left")
    waiting.process.send_signal(number)
    found = waiting.end()
    assert (found.status, found.out) == (status, "")
    assert terminal.lines() == []
    assert command.counter("batch") == 1


def test_ignored_signals_stay_ignored(command: Command, start_either: Starting, terminal: Terminal) -> None:
    """As in the background of a script, or under nohup."""
    command("create", "batch", "--count", 1)
    ignoring = ("sh", "-c", 'trap "" INT TERM; exec "$@"', "sh")
    start_either.program_of_command = (*ignoring, *start_either.program_of_command)
    waiting = start_either("wait", "batch", stderr=terminal.file)
    terminal.read_until("left")
    for number in (signal.SIGTERM, signal.SIGINT):
        waiting.process.send_signal(number)
    command("done", "batch")
    assert waiting.end().status == 0


def test_wait_in_a_thread(command: Command) -> None:
    """Signals are the main thread's business, which has them as it had."""
    command("create", "batch")
    before = signal.getsignal(signal.SIGTERM)
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(command("wait", "batch").status))
    thread.start()
    thread.join()
    assert statuses == [0]
    assert signal.getsignal(signal.SIGTERM) is before


def test_signals_are_as_they_were_after_a_wait(either: Command) -> None:
    """For a program that calls `main`."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    either("create", "batch")
    either("wait", "batch")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


# --- the timeout


@pytest.mark.parametrize(("words", "seconds"), [(["--timeout", "10m"], 600.0), (["--timeout", "24h"], 86400.0), ([], None)])
def test_timeout_is_the_time_that_was_asked_for(
    command: Command, monkeypatch: pytest.MonkeyPatch, words: list[str], seconds: float | None
) -> None:
    """All of it; without one, the wait has no end. konductor's ends after 11 seconds, whatever is said (K15)."""
    found: list[float | None] = []
    watch = InlineStore.watch

    def watched(store: InlineStore, name: str) -> object:
        found.append(store.deadline)
        return watch(store, name)

    monkeypatch.setattr(InlineStore, "watch", watched)
    command("create", "batch")
    before = time.monotonic()
    command("wait", "batch", *words)
    (deadline,) = found
    if seconds is None:
        assert deadline is None
    else:
        assert deadline is not None
        assert before + seconds <= deadline <= time.monotonic() + seconds


def test_timeout_ends_a_wait_in_which_much_happens(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though there is always news, so that nothing ever sleeps."""
    command("create", "batch", "--count", 1)
    show = CountLine.show

    def busy(line: CountLine, status: Status) -> None:
        command("add", "batch")
        show(line, status)

    monkeypatch.setattr(CountLine, "show", busy)
    assert command("wait", "batch", "--timeout", "20ms").status == 4


# --- the line


class TTY(io.StringIO):
    """A file that is a terminal."""

    broken: bool = False

    def isatty(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        if self.broken:
            raise OSError("it is gone")
        return super().write(text)


@pytest.fixture
def tty(monkeypatch: pytest.MonkeyPatch) -> TTY:
    tty = TTY()
    monkeypatch.setenv("TERM", "xterm")
    return tty


def seen(tty: TTY) -> str:
    (line,) = screen(tty.getvalue())
    return line


def counting(counter: int, *, members: int = 0, lost: int = 0) -> Status:
    entries = tuple(Entry("batch", f"w{n}", "", "host", n, 0.0, n) for n in range(members))
    return Status("batch", counter, entries, lost, None, 0.0, counter > 0)


def test_line_shows_what_is_left(tty: TTY) -> None:
    """Of the most there was, and is gone at the end."""
    with CountLine(tty) as line:
        line.show(counting(3))
        assert seen(tty) == "batch: 3 of 3 left"
        line.show(counting(10, members=2))
        assert seen(tty) == "batch: 10 of 10 left, 2 members"
        line.show(counting(1, members=1, lost=1))
        assert seen(tty) == "batch: 1 of 10 left, 1 member, 1 lost"
    assert seen(tty) == ""


def test_line_that_is_as_before_is_not_drawn_again(tty: TTY) -> None:
    """A terminal may be far away."""
    with CountLine(tty) as line:
        line.show(counting(3))
        before = tty.getvalue()
        line.show(counting(3))
        assert tty.getvalue() == before


def test_line_never_wraps(tty: TTY, monkeypatch: pytest.MonkeyPatch) -> None:
    """What wraps cannot be taken back."""
    monkeypatch.setattr(output, "_width", always(8))
    with CountLine(tty) as line:
        line.show(counting(3))
        assert seen(tty) == "batch: 3"


def test_width_is_the_terminals(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Less one column. One that says nothing has 80."""
    with open(os.dup(terminal.file), "w") as file:
        assert output._width(file) == 79
        monkeypatch.setattr(os, "get_terminal_size", always(os.terminal_size((40, 10))))
        assert output._width(file) == 39


def not_a_terminal(tty: TTY, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tty, "isatty", always(False))


def a_dumb_one(tty: TTY, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")


def in_the_background(tty: TTY, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tty, "fileno", always(2))
    monkeypatch.setattr(os, "tcgetpgrp", always(os.getpgrp() + 1))


@pytest.mark.parametrize("how", [not_a_terminal, a_dumb_one, in_the_background])
def test_no_line(how: Callable[[TTY, pytest.MonkeyPatch], None], tty: TTY, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it could not be taken back, or would be in the way of a shell."""
    how(tty, monkeypatch)
    with CountLine(tty) as line:
        line.show(counting(3))
    assert tty.getvalue() == ""


def test_terminal_that_is_gone_does_not_end_the_wait(tty: TTY) -> None:
    """The line is a luxury."""
    with CountLine(tty) as line:
        line.show(counting(3))
        tty.broken = True
        line.show(counting(2))
        line.show(counting(1))


def test_no_standard_error_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under a service manager that closed it."""
    with CountLine(None) as line:
        line.show(counting(3))
    monkeypatch.setattr("sys.stderr", None)
    output.tell("nobody hears it")


def test_timeout_holds_for_a_store_that_does_not_answer(command: Command) -> None:
    """As for one that does: the status is that of a timeout."""
    found = command("wait", "batch", "--timeout", "100ms", "--store", "etcd://127.0.0.1:1/x")
    assert (found.status, found.out) == (4, "")
    assert (
        found.err
        == "grouper: wait group 'batch': its store has not answered within 100ms: see whether it runs and can be reached\n"
    )
