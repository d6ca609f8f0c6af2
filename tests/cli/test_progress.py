"""The progress of a graph and of a pool in a terminal: what is seen, how often it is drawn, and what it does to its block."""

from __future__ import annotations

import logging
import os
import pty
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from rich.console import Console
from trio.testing import wait_all_tasks_blocked

from grouper.cli.progress import show_progress
from grouper.work import Backoff, Jobs, NotReady, Pool, PoolClosed, job, open_pool, run_jobs

from .screen import HIDE_CURSOR, SHOW_CURSOR, Terminal, screen

PROGRAM = Path(__file__).with_name("program.py")


@pytest.fixture(autouse=True)
def _a_usual_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


def takes(seconds: float) -> Callable[[], Awaitable[None]]:
    async def body() -> None:
        await trio.sleep(seconds)

    return body


async def fine() -> None:
    pass


async def fails() -> None:
    raise ValueError("wrong")


async def not_yet() -> None:
    raise NotReady("no leader yet")


# What is seen


async def test_it_shows_how_many_jobs_of_a_graph_are_done(terminal: Terminal) -> None:
    """Of all that there are, as they end."""
    jobs = Jobs({"a": takes(2), "b": job(takes(2), after="a"), "c": job(fine, after="b")})
    async with show_progress(jobs.report, console=terminal.console), trio.open_nursery() as nursery:
        assert terminal.head == "0 of 3 done"
        nursery.start_soon(jobs.execute)
        await trio.sleep(2.5)
        assert terminal.head == "1 of 3 done"
    assert terminal.head == "3 of 3 done"


async def test_it_shows_who_runs_and_for_how_long(terminal: Terminal) -> None:
    """A line each, those first that run longest; in minutes and seconds."""
    jobs = Jobs({"slow": takes(100), "quick": takes(1), "next": job(takes(100), after="quick")})
    async with show_progress(jobs.report, console=terminal.console), trio.open_nursery() as nursery:
        nursery.start_soon(jobs.execute)
        await trio.sleep(0.5)
        assert sorted(terminal.lines[1:]) == ["    0:00  quick", "    0:00  slow"]
        await trio.sleep(65)
        assert terminal.lines[1:] == ["    1:05  slow", "    1:04  next"]
    assert terminal.lines[1:] == []


async def test_hours_are_shown_as_such(terminal: Terminal) -> None:
    """From the first one on."""
    jobs = Jobs({"slow": takes(5000)})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(jobs.execute)
        await trio.sleep(3600 + 125.5)
        async with show_progress(jobs.report, console=terminal.console):
            assert terminal.lines[1:] == [" 1:02:05  slow"]
        nursery.cancel_scope.cancel()


async def test_of_many_that_run_ten_are_shown(terminal: Terminal) -> None:
    """And how many more there are."""
    jobs = Jobs({f"j{n}": takes(10) for n in range(25)}, limit=25)
    async with show_progress(jobs.report, console=terminal.console), trio.open_nursery() as nursery:
        nursery.start_soon(jobs.execute)
        await trio.sleep(5)
        assert len(terminal.lines) == 1 + 10 + 1
        assert terminal.lines[-1].strip() == "and 15 more"


async def test_it_counts_what_ended_badly(terminal: Terminal) -> None:
    """By how."""
    jobs = Jobs({"a": fails, "b": job(fine, after="a"), "c": not_yet, "d": job(fine, after="c"), "e": fine}, on_error="continue")
    async with show_progress(jobs.report, console=terminal.console):
        await jobs.execute()
    assert terminal.head == "5 of 5 done  1 failed, 1 not ready, 2 skipped"


async def test_it_shows_what_was_cut_short_and_what_was_never_reached(terminal: Terminal) -> None:
    """They have ended too, once the run was cancelled."""
    jobs = Jobs({"a": job(takes(2), timeout=1), "b": takes(2), "c": job(fine, after="b")})
    async with show_progress(jobs.report, console=terminal.console):
        await jobs.execute()
    assert terminal.head == "3 of 3 done  1 failed, 1 cancelled, 1 unknown"


async def test_it_shows_that_a_job_is_tried_again(terminal: Terminal) -> None:
    """Which try it is, while it runs."""
    tries = 0

    async def flaky() -> None:
        nonlocal tries
        tries += 1
        if tries < 2:
            raise OSError("no network")
        await trio.sleep(10)

    jobs = Jobs({"a": job(flaky, retry=Backoff(1.0, jitter=0))})
    async with show_progress(jobs.report, console=terminal.console), trio.open_nursery() as nursery:
        nursery.start_soon(jobs.execute)
        await trio.sleep(5.5)
        assert terminal.lines[1:] == ["    0:05  a (try 2)"]


async def test_an_empty_graph_is_done(terminal: Terminal) -> None:
    """Of nothing, nothing is left."""
    jobs = Jobs({})
    async with show_progress(jobs.report, console=terminal.console):
        await jobs.execute()
    assert terminal.head == "0 of 0 done"


async def test_of_a_run_that_is_over_it_shows_the_end(terminal: Terminal) -> None:
    """As of any report."""
    report = await run_jobs({"a": fine, "b": not_yet})
    async with show_progress(report, console=terminal.console):
        assert terminal.head == "2 of 2 done  1 not ready"


async def test_of_a_pool_it_shows_how_many_of_those_started_have_ended(terminal: Terminal) -> None:
    """As more are started; also of those from before it was shown, and those that are idle."""

    async def idles(pool: Pool, seconds: float) -> None:
        async with pool.idle():
            await trio.sleep(seconds)

    async with open_pool(limit=2) as pool:
        await pool.start(fine)
        async with show_progress(pool, console=terminal.console):
            assert terminal.head == "1 of 1 done"
            pool.start(takes(1))
            pool.start(idles, pool, 3)
            await trio.sleep(0.5)
            assert terminal.head == "1 of 3 done"
            pool.start(takes(2))
            await trio.sleep(1)
            assert terminal.head == "2 of 4 done"
            await pool.drained()
        assert terminal.head == "4 of 4 done"


async def test_of_a_pool_it_counts_what_ended_badly(terminal: Terminal) -> None:
    """Failures from before it was shown, too."""
    with pytest.raises(ExceptionGroup, match="2 jobs failed"):
        async with open_pool(on_error="continue") as pool:
            pool.start(fails)
            await pool.drained()
            async with show_progress(pool, console=terminal.console):
                assert terminal.head == "1 of 1 done  1 failed"
                pool.start(fine, after=pool.start(fails))
                pool.start(fine, after=pool.start(not_yet))
                await pool.drained()
            assert terminal.head == "5 of 5 done  2 failed, 1 not ready, 2 skipped"


async def test_of_a_pool_whose_jobs_never_wait_none_is_missed(terminal: Terminal) -> None:
    """They end faster than events are read one by one, and more of them than are kept."""
    async with open_pool() as pool, show_progress(pool, console=terminal.console):
        for _ in range(40_000):
            pool.start(not_yet)
        await pool.drained()
    assert terminal.head == "40000 of 40000 done  40000 not ready"


async def test_names_are_shown_as_they_are(terminal: Terminal) -> None:
    """What is markup elsewhere is not here, and what would control the terminal is escaped."""
    jobs = Jobs({"[red]a[/red]\n\x1b[2Jb": takes(10)})
    async with show_progress(jobs.report, console=terminal.console), trio.open_nursery() as nursery:
        nursery.start_soon(jobs.execute)
        await trio.sleep(1.5)
        assert terminal.lines[1:] == [r"    0:01  [red]a[/red]\n\x1b[2Jb"]


@pytest.mark.parametrize("width", [20, 40, 200])
async def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """One that was would take two, and the next picture would not cover it."""
    terminal = Terminal(width=width)
    jobs = Jobs({"n" * 300: takes(10), "b": fails, "c": job(fine, after="b"), "d": not_yet}, on_error="continue")
    async with show_progress(jobs.report, console=terminal.console), trio.open_nursery() as nursery:
        nursery.start_soon(jobs.execute)
        await trio.sleep(5)
        assert len(terminal.lines) == 2
        assert max(map(len, terminal.lines)) <= width


# How often it is drawn


async def test_it_is_drawn_ten_times_a_second_at_most(terminal: Terminal) -> None:
    """However many jobs begin and end."""
    jobs = Jobs([(f"j{n}", job(takes(0.01), after=f"j{n - 1}" if n else ())) for n in range(100)])
    async with show_progress(jobs.report, console=terminal.console):
        begun = trio.current_time()
        await jobs.execute()
        assert trio.current_time() - begun == pytest.approx(1, abs=0.02)
    assert 8 <= terminal.pictures <= 12


async def test_it_is_drawn_each_second_while_a_job_runs(terminal: Terminal) -> None:
    """As the time that is shown changes, and nothing more often."""
    jobs = Jobs({"a": takes(59.5)})
    async with show_progress(jobs.report, console=terminal.console), trio.open_nursery() as nursery:
        nursery.start_soon(jobs.execute)
        await trio.sleep(59.2)
        assert terminal.pictures == 1 + 1 + 59  # before the run, when the job has begun, and each second


async def test_it_is_not_drawn_while_nothing_changes(terminal: Terminal) -> None:
    """A job that is tried again each second, and never runs when it is looked at, shows nothing that does."""
    jobs = Jobs({"a": job(not_yet, retry=Backoff(1, factor=1, jitter=0))})
    async with show_progress(jobs.report, console=terminal.console), trio.open_nursery() as nursery:
        nursery.start_soon(jobs.execute)
        await trio.sleep(10.5)
        seen = terminal.written
        await trio.sleep(100)
        assert terminal.written == seen
        assert jobs.report["a"].attempts > 100
        nursery.cancel_scope.cancel()


async def test_it_uses_no_thread(terminal: Terminal) -> None:
    """What draws is a task."""
    before = threading.active_count()
    async with show_progress(Jobs({"a": fine}).report, console=terminal.console):
        assert threading.active_count() == before


# What it does to its block


async def test_an_exception_of_the_block_comes_out_as_it_is(terminal: Terminal) -> None:
    """In no group; and the terminal is restored."""
    error = ValueError("wrong")
    with pytest.raises(ValueError, match="wrong") as caught:
        async with show_progress(Jobs({"a": fine}).report, console=terminal.console):
            await wait_all_tasks_blocked()
            raise error
    assert caught.value is error
    assert restored(terminal)


async def test_a_keyboard_interrupt_in_the_block_comes_out_as_it_is(terminal: Terminal) -> None:
    """Which is no Exception."""
    with pytest.raises(KeyboardInterrupt):
        async with show_progress(Jobs({"a": fine}).report, console=terminal.console):
            raise KeyboardInterrupt
    assert restored(terminal)


@pytest.mark.real_time
def test_a_keyboard_interrupt_that_comes_when_the_block_has_ended_is_raised_alone(terminal: Terminal) -> None:
    """It is kept from what draws, and lost nowhere."""

    @trio.lowlevel.enable_ki_protection
    async def main() -> None:
        async with show_progress(Jobs({"a": fine}).report, console=terminal.console):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert restored(terminal)


async def test_a_block_can_be_cancelled(terminal: Terminal) -> None:
    """From outside: what comes out is the cancellation alone, and the terminal is restored."""
    jobs = Jobs({"a": trio.sleep_forever})
    with trio.move_on_after(5) as scope:
        async with show_progress(jobs.report, console=terminal.console):
            await jobs.execute()
    assert scope.cancelled_caught
    assert terminal.head == "1 of 1 done  1 cancelled"
    assert restored(terminal)


async def test_a_cancelled_block_can_still_raise(terminal: Terminal) -> None:
    """The failure of a clean-up is not lost, and in no group."""
    error = ValueError("because")
    with pytest.raises(ValueError, match="because") as caught, trio.move_on_after(5):
        async with show_progress(Jobs({"a": fine}).report, console=terminal.console):
            try:
                await trio.sleep_forever()
            finally:
                raise error
    assert caught.value is error


async def test_it_can_be_entered_in_a_scope_that_is_cancelled(terminal: Terminal) -> None:
    """The block decides what that means to it."""
    with trio.CancelScope() as scope:
        scope.cancel()
        async with show_progress(Jobs({"a": fine}).report, console=terminal.console):
            pass
    assert not scope.cancelled_caught
    assert restored(terminal)


async def test_a_pool_that_fails_raises_what_it_would_without(terminal: Terminal) -> None:
    """It cancels its block, in which the progress is shown."""
    with pytest.raises(ExceptionGroup) as caught:
        async with open_pool() as pool, show_progress(pool, console=terminal.console):
            pool.start(fails)
            await trio.sleep_forever()
    assert [type(error) for error in caught.value.exceptions] == [ValueError]
    assert restored(terminal)


async def test_the_block_ends_when_it_ends(terminal: Terminal) -> None:
    """Whether or not what is shown goes on: in the same moment of trio's clock."""
    async with open_pool() as pool:
        pool.start(takes(100))
        begun = trio.current_time()
        async with show_progress(pool, console=terminal.console):
            await wait_all_tasks_blocked()
        assert trio.current_time() == begun
        assert terminal.lines[0].endswith("0 of 1 done")


async def test_the_block_can_go_on_when_the_run_has_ended(terminal: Terminal) -> None:
    """The end is shown, and nothing more is drawn."""
    jobs = Jobs({"a": takes(1)})
    async with show_progress(jobs.report, console=terminal.console):
        await jobs.execute()
        await trio.sleep(1)
        assert terminal.head == "1 of 1 done"
        seen = terminal.written
        await trio.sleep(100)
        assert terminal.written == seen


async def test_two_can_be_shown_one_after_the_other(terminal: Terminal) -> None:
    """In one terminal: the first stays."""
    for name in "ab":
        jobs = Jobs({name: fine})
        async with show_progress(jobs.report, console=terminal.console):
            await jobs.execute()
    assert [line.endswith("1 of 1 done") for line in terminal.lines] == [True, True]


async def test_a_terminal_that_is_gone_does_not_end_the_block(terminal: Terminal, caplog: pytest.LogCaptureFixture) -> None:
    """That is logged, once, and the jobs go on."""
    jobs = Jobs({"a": takes(5), "b": job(takes(5), after="a")})
    with caplog.at_level(logging.WARNING, "grouper"):
        async with show_progress(jobs.report, console=terminal.console), trio.open_nursery() as nursery:
            nursery.start_soon(jobs.execute)
            await trio.sleep(1.5)
            terminal.file.broken = True
    assert jobs.report.ok
    assert caplog.messages == ["the progress of jobs is not shown: OSError('the terminal is gone')"]


async def test_a_terminal_that_was_never_there_does_not_keep_the_block_from_beginning(
    terminal: Terminal, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does it begin a task."""
    terminal.file.broken = True
    before = [*trio.lowlevel.current_task().child_nurseries]
    with caplog.at_level(logging.WARNING, "grouper"):
        async with show_progress(Jobs({"a": fine}).report, console=terminal.console):
            assert trio.lowlevel.current_task().child_nurseries == before
    assert len(caplog.messages) == 1


def restored(terminal: Terminal) -> bool:
    """Whether the cursor is shown again, and was hidden before."""
    return HIDE_CURSOR in terminal.written and terminal.written.rstrip().endswith(SHOW_CURSOR)


# Where there is no terminal


async def test_without_a_terminal_nothing_is_written() -> None:
    """No task is begun, and the jobs publish no events."""
    pipe = Terminal(terminal=False)
    jobs = Jobs({"a": fine})
    before = [*trio.lowlevel.current_task().child_nurseries]
    async with show_progress(jobs.report, console=pipe.console):
        assert trio.lowlevel.current_task().child_nurseries == before
        await jobs.execute()
    assert pipe.written == ""
    assert jobs.report._crew.ring is None


async def test_in_a_terminal_that_cannot_move_its_cursor_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an editor's: every picture would be below the last one."""
    monkeypatch.setenv("TERM", "dumb")
    dumb = Terminal()
    jobs = Jobs({"a": fine})
    async with show_progress(jobs.report, console=dumb.console):
        await jobs.execute()
    assert dumb.written == ""


async def test_the_default_console_is_silent_in_a_pipe_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """FORCE_COLOR asks for colours in a log, where a bar would be drawn line by line."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert Console(stderr=True).is_terminal
    jobs = Jobs({"a": fine})
    async with show_progress(jobs.report):
        await jobs.execute()
    assert capsys.readouterr() == ("", "")


# What is refused


@pytest.mark.parametrize("is_terminal", [True, False])
async def test_a_pool_that_is_not_open_is_refused(is_terminal: bool) -> None:
    """With or without a terminal: its events are those of a run."""
    with pytest.raises(PoolClosed, match="the pool is not open"):
        show_progress(Pool(), console=Terminal(terminal=is_terminal).console)


async def test_what_is_neither_is_refused(terminal: Terminal) -> None:
    """The fix is named."""
    jobs: Any = Jobs({"a": fine})
    with pytest.raises(TypeError, match="give the report of a Jobs, or a Pool"):
        show_progress(jobs, console=terminal.console)


async def test_it_is_entered_once(terminal: Terminal) -> None:
    """Each block has its own."""
    shown = show_progress(Jobs({"a": fine}).report, console=terminal.console)
    async with shown:
        pass
    with pytest.raises(RuntimeError, match="entered once"):
        async with shown:
            pass


async def test_without_rich_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there is no terminal: what is missing is found before it is needed."""
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with pytest.raises(ImportError, match=r"trio-grouper\[cli\]"):
        show_progress(Jobs({"a": fine}).report)


# In a program


class Shown:
    """The program in a pseudo-terminal."""

    def __init__(self, last: str) -> None:
        self._end, theirs = pty.openpty()
        # From 3.13 on Python colours a traceback itself.
        environ = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24", "PYTHON_COLORS": "0"}
        self.process = subprocess.Popen([sys.executable, PROGRAM, last], stdin=theirs, stdout=theirs, stderr=theirs, env=environ)
        os.close(theirs)
        self.written = ""

    def read(self, until: str = "") -> None:
        """Read until that is there, or the end."""
        while not until or until not in self.written:
            assert select.select([self._end], [], [], 60)[0], self.written
            try:
                more = os.read(self._end, 65_536)
            except OSError:  # Linux' way to say that nobody has the other end
                more = b""
            if not more:
                return
            self.written += more.decode(errors="replace")

    def __enter__(self) -> Shown:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._end)


@pytest.mark.real_time
def test_a_program_in_a_terminal_shows_a_bar_and_what_it_prints_above_it() -> None:
    """And leaves both, and a cursor, behind; sys.stdout is its own again."""
    with Shown("fine") as program:
        program.read()
        assert program.process.wait(60) == 0
        lines = [line for line in screen(program.written) if line]
        assert lines[0] == "hello from the job"
        assert lines[1].endswith("2 of 2 done")
        assert len(lines) == 2
        assert "0:00  talk" in program.written
        assert program.written.index(HIDE_CURSOR) < program.written.index(SHOW_CURSOR)
        assert program.written.rstrip().endswith(SHOW_CURSOR)


@pytest.mark.real_time
def test_a_program_that_fails_leaves_a_terminal_that_can_be_used() -> None:
    """The cursor is there before the traceback is."""
    with Shown("fails") as program:
        program.read()
        assert program.process.wait(60) == 1
        assert program.written.index(SHOW_CURSOR) < program.written.index("Traceback")
        assert HIDE_CURSOR not in program.written[program.written.index(SHOW_CURSOR) :]
        assert "ValueError: the block has failed" in program.written
        assert "ExceptionGroup" not in program.written


@pytest.mark.real_time
def test_a_program_that_is_interrupted_leaves_a_terminal_that_can_be_used() -> None:
    """Ctrl-C is a KeyboardInterrupt in the block, in no group."""
    with Shown("forever") as program:
        program.read("2 of 2 done")
        program.process.send_signal(signal.SIGINT)
        program.read()
        assert program.process.wait(60) in (-signal.SIGINT, 130)
        assert SHOW_CURSOR in program.written
        assert "KeyboardInterrupt" in program.written
        assert "ExceptionGroup" not in program.written


@pytest.mark.real_time
def test_a_program_in_a_pipe_shows_nothing() -> None:
    """Only what it prints."""
    result = subprocess.run([sys.executable, PROGRAM, "fine"], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout == "hello from the job\n"
    assert result.stderr == ""
