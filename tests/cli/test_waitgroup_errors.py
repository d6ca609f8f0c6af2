"""What goes wrong with `grouper waitgroup`: a status for each, and one line that says what to do."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from grouper.cli import exit_status, output, waitgroup
from grouper.cli.exit_status import Signalled, status_of
from grouper.coordination import (
    CoordinationError,
    Deleted,
    Exists,
    InvalidName,
    LockLost,
    MemberLost,
    NotFound,
    Overflow,
    Unavailable,
    Underflow,
    WaitGroup,
    WaitGroupError,
)

from .conftest import GROUPER, IN_TRIO, Command, Starting

pytestmark = pytest.mark.real_time


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (exit_status.UsageError(), 2),
        (InvalidName(), 2),
        (NotFound(), 3),
        (exit_status.OutOfTime(), 4),
        (exit_status.Lost(), 5),
        (MemberLost(), 5),
        (Underflow(), 6),
        (Overflow(), 6),
        (Exists(), 6),
        (Deleted(), 7),
        (Unavailable(""), 1),
        (LockLost(), 1),
        (WaitGroupError(), 1),
        (CoordinationError(), 1),
        (exit_status.CommandNotRun(), 126),
        (exit_status.CommandNotFound(), 127),
        (ValueError(), None),
        (KeyError(), None),
    ],
)
def test_each_error_has_its_status(error: Exception, status: int | None) -> None:
    """Those that nobody foresaw have none."""
    assert status_of(error) == status


LINES = [
    ("status none", 3, "there is no wait group 'none'"),
    ("add none", 3, "there is no wait group 'none'"),
    ("done none", 3, "there is no wait group 'none'"),
    ("wait none", 3, "there is no wait group 'none'"),
    ("run none -- true", 3, "there is no wait group 'none'"),
    ("done batch --delta 3", 6, "not 3: `done` was called more often than `add`"),
    ("add batch --delta 2147483646", 6, "the most is 2147483647"),
    ("add batch --delta 2147483648", 6, "more than a group can count, which is 2147483647"),
    ("create new --count 2147483648", 6, "more than a group can count, which is 2147483647"),
    ("create batch --ttl 1h", 6, "with no ttl"),
    ("done batch --token used", 6, "the token 'used' was used for another call"),
    ("add batch --tickets --delta 51", 2, "--delta 51: with --tickets at most 50: use several calls"),
    ("add a/b", 2, "call the wait group otherwise"),
    (f"add {'x' * 254}", 2, "at most 253"),
    ("run batch --id a/b -- true", 2, "call the member otherwise"),
    ("add \udcff", 2, r"the name '\udcff' has"),
]


@pytest.mark.parametrize(("words", "status", "text"), LINES)
def test_error_is_one_line(either: Command, words: str, status: int, text: str) -> None:
    """On standard error, and nothing is changed."""
    either("create", "batch", "--count", 1)
    either("add", "batch", "--token", "used")
    found = either(*words.split())
    assert (found.status, found.out) == (status, "")
    assert found.err.startswith("grouper: ")
    assert found.err.endswith("\n")
    assert found.err.count("\n") == 1
    assert text in found.err
    assert either.counter("batch") == 2
    assert either("status", "new").status == 3


# --- stores that cannot be used


def test_url_that_is_none_is_told_with_where_it_comes_from(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag, or the environment."""
    found = command("list", "--store", "redis://x")
    assert found.status == 2
    assert found.err.startswith("grouper: --store: 'redis://x' is not the url of a store: write sqlite:PATH")
    monkeypatch.setenv("GROUPER_STORE", "x.db")
    found = command("list")
    assert found.status == 2
    assert found.err.startswith("grouper: GROUPER_STORE: 'x.db' is not the url of a store: write sqlite:PATH")


def test_store_whose_extra_is_missing(command: Command, start: Starting) -> None:
    """It says what to install."""
    without = "import sys; sys.modules['httpx2'] = None; from grouper.cli import main; sys.exit(main())"
    start.program_of_command = (sys.executable, "-c", without)
    found = start("list", "--store", "etcd://127.0.0.1:1").end()
    assert (found.status, found.out, found.err.count("\n")) == (1, "", 1)
    assert "pip install" in found.err


def no_folder(folder: Path) -> Path:
    return folder / "none" / "store.db"


def a_folder(folder: Path) -> Path:
    return folder


def no_database(folder: Path) -> Path:
    path = folder / "store.db"
    path.write_text("something else that is long enough to be looked at" * 100)
    return path


def of_another_program(folder: Path) -> Path:
    path = folder / "store.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE other (x)")
    connection.close()
    return path


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (no_folder, "is not there: make it, or name another file"),
        (a_folder, "grouper: the store "),
        (no_database, "it is no SQLite database: name another file"),
        (of_another_program, "is the database of another program: name another file"),
    ],
)
@pytest.mark.parametrize("verb", ["list", "create batch", "add batch", "wait batch", "run batch -- true"])
def test_store_that_cannot_be_used(command: Command, tmp_path: Path, make: Callable[[Path], Path], text: str, verb: str) -> None:
    """Status 1, and what to do; nothing is run."""
    found = command(*verb.split()[:1], "--store", f"sqlite:{make(tmp_path)}", *verb.split()[1:])
    assert (found.status, found.out) == (1, "")
    assert found.err.count("\n") == 1
    assert text in found.err


@pytest.mark.parametrize("verb", ["add", "done"])
def test_change_whose_outcome_is_not_known_can_be_repeated(command: Command, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    """The error says with which token."""

    async def unknown(*_: object, **__: object) -> None:
        raise Unavailable("the store does not answer", "f00")

    monkeypatch.setattr(WaitGroup, verb, unknown)
    found = command(verb, "batch")
    assert found.status == 1
    assert found.err == (
        "grouper: the store does not answer: whether the change was made is not known: "
        "the same command with --token f00 makes it once\n"
    )


# --- what nobody foresaw

LOGGING: Final = """
import logging
from grouper.cli import waitgroup
listed = waitgroup.VERBS["list"]
def slowly(*arguments):
    logging.getLogger("grouper").warning("the store is slow")
    return listed(*arguments)
waitgroup.VERBS["list"] = slowly
"""
"""A verb whose store logs something."""


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in the command itself."""

    async def status(*_: object) -> None:
        raise ZeroDivisionError("on\ntwo lines")

    monkeypatch.setitem(waitgroup.VERBS, "status", status)


@pytest.mark.usefixtures("fault")
def test_fault_of_the_command_is_one_line_too(either: Command) -> None:
    """It says how to find out more."""
    found = either("status", "batch")
    assert (found.status, found.out) == (1, "")
    assert found.err == (
        "grouper: ZeroDivisionError: on two lines: this is a fault of the command itself: with --debug it tells where\n"
    )


@pytest.mark.usefixtures("fault")
def test_debug_prints_the_traceback(either: Command) -> None:
    """Before the line."""
    found = either("status", "batch", "--debug")
    assert found.status == 1
    assert found.err.startswith("Traceback")
    assert "in status" in found.err
    assert found.err.splitlines()[-1].startswith("grouper: ZeroDivisionError")


def test_errors_that_were_foreseen_have_a_traceback_on_demand(either: Command) -> None:
    """And the same status."""
    found = either("status", "none", "--debug")
    assert found.status == 3
    assert "NotFound" in found.err


@pytest.mark.parametrize("debug", [False, True])
def test_log_of_the_store_is_for_those_who_ask(start: Starting, debug: bool) -> None:
    """The lines on standard error are the command's, unless it is to be debugged."""
    start.program_of_command = (sys.executable, "-c", IN_TRIO.replace("sys.exit", f"{LOGGING}sys.exit"))
    found = start("list", *["--debug"] * debug).end()
    assert (found.status, found.err) == (0, "the store is slow\n" * debug)


def test_store_that_awaits_though_it_should_block_is_a_fault(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found out at once."""

    class Await:
        def __await__(self) -> object:
            yield

    async def status(*_: object) -> None:
        await Await()  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]  # what no store does

    monkeypatch.setitem(waitgroup.VERBS, "status", status)
    assert "a store that should block has awaited" in command("status", "batch").err


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (Signalled(15), 143)])
def test_signal_is_its_status(command: Command, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int) -> None:
    """Nothing is printed."""

    async def interrupted(*_: object) -> None:
        raise error

    monkeypatch.setitem(waitgroup.VERBS, "status", interrupted)
    found = command("status", "batch")
    assert (found.status, found.out, found.err) == (status, "", "")


# --- output that nobody takes


def test_output_that_nobody_reads_is_no_error(start: Starting, command: Command) -> None:
    """As in `grouper waitgroup list | true`."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        found = start("create", "batch", stdout=writing).end()
    finally:
        os.close(writing)
    assert (found.status, found.err) == (0, "")
    assert command.counter("batch") == 0


def test_help_that_nobody_reads_is_no_error(start: Starting) -> None:
    """As in `grouper --help | true`."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        found = start("--help", stdout=writing).end()
    finally:
        os.close(writing)
    assert (found.status, found.err) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full disk at hand")
def test_output_that_cannot_be_written_is_an_error(start: Starting, command: Command) -> None:
    """It says that the change was made."""
    with open("/dev/full", "w") as full:
        found = start("create", "batch", stdout=full).end()
    assert found.status == 1
    assert found.err.startswith("grouper: it was done, but the result cannot be written (No space left on device)")
    assert found.err.count("\n") == 1
    assert command.counter("batch") == 0


def test_closed_output_is_no_error(url: str) -> None:
    """As in `grouper waitgroup create batch >&- 2>&-`."""
    words = subprocess.list2cmdline([*GROUPER, "waitgroup"])
    script = f"{words} create batch >&- 2>&- || exit 9; {words} create batch --ttl 1h >&- 2>&-"
    assert subprocess.run(["/bin/sh", "-c", script], check=False).returncode == 6


def test_line_stays_one_line() -> None:
    """Whatever is in it; nor does it move the cursor of a terminal."""
    assert output.one_line("a\n b\x1b[2Jc\r\td") == "a b [2Jc d"


def test_what_the_terminal_cannot_show_is_escaped(command: Command, start: Starting) -> None:
    """Instead of an error."""
    found = start("create", "bätch", env={**os.environ, "PYTHONIOENCODING": "ascii"}).end()
    assert (found.status, found.out) == (0, "b\\xe4tch: created\n")
