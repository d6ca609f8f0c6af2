"""`grouper waitgroup run`: a member for as long as a command runs, whose status and signals are the command's."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import pytest

from grouper.cli.running import PASSED_ON, Relay
from grouper.coordination import Unavailable
from grouper.coordination.sqlite.store import InlineStore, Owning

from .conftest import GROUPER, Command, Started, Starting, Terminal, always

pytestmark = pytest.mark.real_time

AS_JSON = ("status", "batch", "-o", "json")


@pytest.fixture
def run(command: Command) -> Command:
    """The command, and a group."""
    command("create", "batch")
    return command


def members(command: Command) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = command(*AS_JSON).document["status"]["members"]
    return found


# --- the command


@pytest.mark.parametrize("status", [0, 1, 5, 42, 255])
def test_status_is_the_commands(run: Command, status: int) -> None:
    """Whatever it is; the member leaves all the same."""
    found = run("run", "batch", "--", "sh", "-c", f"exit {status}")
    assert (found.status, found.out, found.err) == (status, "", "")
    assert run(*AS_JSON).document["status"] == {"counter": 0, "phase": "Done", "members": [], "lost": 0}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSEGV])
def test_command_that_dies_of_a_signal(run: Command, number: signal.Signals) -> None:
    """Its status is what a shell makes of that."""
    assert run("run", "batch", "--", "sh", "-c", f"ulimit -c 0; kill -{number.value} $$").status == 128 + number


def test_command_has_the_arguments_as_they_stand(run: Command) -> None:
    """Nothing is split, nothing expanded."""
    found = run("run", "batch", "--", "printf", "%s|", "a b", "$HOME", "*", "", "--help")
    assert found.out == "a b|$HOME|*||--help|"


def test_command_is_searched_in_path(run: Command, path: Path) -> None:
    """As by a shell."""
    script = path / "work"
    script.write_text("#!/bin/sh\necho worked\n")
    script.chmod(0o755)
    assert run("run", "batch", "--", "work").out == "worked\n"


def test_command_has_this_processs_input_and_output(start_either: Starting, run: Command) -> None:
    """All three."""
    started = start_either("run", "batch", "--", "sh", "-c", "cat; echo err >&2")
    out, err = started.process.communicate("in\n", timeout=30)
    assert (started.process.returncode, out, err) == (0, "in\n", "err\n")


def test_member_is_there_while_the_command_runs(start_either: Starting, run: Command) -> None:
    """Under the name that was given, with the number of the process that a signal would be sent to."""
    started = start_either("run", "batch", "--id", "part1", "--", "sh", "-c", "echo here; cat")
    assert started.line() == "here\n"
    (member,) = members(run)
    assert member == {"id": "part1", "host": os.uname().nodename, "pid": started.process.pid, "since": member["since"]}
    assert abs(time.time() - member["since"]) < 60
    found = run("status", "batch").out
    assert "counter  1 (1 member, 0 that nobody owns)" in found
    header, row = [line.split() for line in found.split("\n\n")[1].splitlines()]
    assert header == ["MEMBER", "HOST", "PID", "AGE"]
    assert row[:3] == ["part1", os.uname().nodename, str(started.process.pid)]
    assert started.end().status == 0
    assert members(run) == []


def test_member_without_a_name_is_called_by_its_command(start: Starting, run: Command) -> None:
    """And something that makes it its own."""
    for _ in range(2):
        assert start("run", "batch", "--", "/bin/sh", "-c", "echo here; cat").line() == "here\n"
    first, second = [member["id"] for member in members(run)]
    assert first != second
    assert first.startswith("sh-")
    assert second.startswith("sh-")


@pytest.mark.parametrize("program", ["no\nthing", "/", "x" * 300])
def test_command_with_a_name_that_no_member_can_have(run: Command, program: str) -> None:
    """It is not the member's name that is wrong."""
    assert run("run", "batch", "--", program).status in (126, 127)


def test_id_that_is_taken(run: Command) -> None:
    """The command is not begun."""
    words = ("run", "batch", "--id", "w1", "--")
    found = run(*words, *GROUPER, "waitgroup", *words, "echo", "here")
    assert (found.status, found.out) == (6, "")
    assert found.err.startswith("grouper: 'batch' has a member 'w1'")


def test_command_that_is_not_found(run: Command) -> None:
    """As in a shell; the member has left."""
    found = run("run", "batch", "--", "./nothing")
    assert (found.status, found.out) == (127, "")
    assert found.err.startswith("grouper: the command './nothing' is not found: ")
    assert run.counter("batch") == 0


@pytest.mark.parametrize("make", ["a folder", "no mode", "no first line"])
def test_command_that_cannot_be_run(run: Command, tmp_path: Path, make: str) -> None:
    """As in a shell; the member has left."""
    path = tmp_path / "work"
    if make == "a folder":
        path.mkdir()
    else:
        path.write_text("echo worked\n")
        path.chmod(stat.S_IRUSR | stat.S_IXUSR if make == "no first line" else stat.S_IRUSR)
    found = run("run", "batch", "--", path)
    assert (found.status, found.out) == (126, "")
    assert found.err.startswith(f"grouper: the command {str(path)!r} cannot be run (")
    assert run.counter("batch") == 0


def test_runs_may_be_nested(run: Command) -> None:
    """The command can use the store."""
    found = run("run", "batch", "--", *GROUPER, "waitgroup", "run", "batch", "--", *GROUPER, "waitgroup", "list")
    assert found.out.splitlines()[1].split() == ["batch", "2", "Waiting", "0", "2"]


def test_status_of_a_child_can_be_had_though_nobody_asks_for_it(run: Command) -> None:
    """As where this process was begun with SIGCHLD ignored, and the system would throw statuses away."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert run("run", "batch", "--", "sh", "-c", "exit 4").status == 4
        assert signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGCHLD, before)


# --- signals, each to this process alone

PROGRAM: Final = """
import os, signal
numbers = signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2
heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
signal.pthread_sigmask(signal.SIG_BLOCK, heeded)
os.write(1, b"ready\\n")
got = []
while "SIGTERM" not in got:
    got.append(signal.Signals(signal.sigwait(heeded)).name)
os.write(1, (" ".join(got) + "\\n").encode())
os._exit(3)
"""
"""A command that prints, at SIGTERM, what it got."""

SIGNALS: Final = """
import signal
ignored = [number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN]
print(signal.pthread_sigmask(signal.SIG_BLOCK, []), *ignored)
"""
"""A command that prints which signals are blocked, and which ignored."""

COUNTING = (sys.executable, "-I", "-S", "-c", PROGRAM)


@pytest.fixture
def counting(start_either: Starting, run: Command) -> Started:
    """Such a command, which runs."""
    started = start_either("run", "batch", "--", *COUNTING)
    assert started.line() == "ready\n"
    return started


@pytest.mark.parametrize("name", [name for name in PASSED_ON if name != "SIGTERM"])
def test_signal_is_passed_on_once(start: Starting, run: Command, name: str) -> None:
    """To the command, which decides; this process stays until that ends."""
    started = start("run", "batch", "--", *COUNTING)
    assert started.line() == "ready\n"
    started.process.send_signal(signal.Signals[name])
    started.process.send_signal(signal.SIGTERM)
    found = started.end()
    assert (found.status, sorted(found.out.split()), found.err) == (3, sorted([name, "SIGTERM"]), "")
    assert run.counter("batch") == 0


def test_signal_that_the_command_takes_for_its_end(counting: Started, run: Command) -> None:
    """Its status is the command's own, and the member has left."""
    counting.process.send_signal(signal.SIGTERM)
    assert counting.end().status == 3
    assert run(*AS_JSON).document["status"] == {"counter": 0, "phase": "Done", "members": [], "lost": 0}


def test_command_that_dies_of_a_signal_that_was_passed_on(start_either: Starting, run: Command) -> None:
    """So does this process, of SIGINT, so that the script around it does; of others the status tells."""
    for number, status in ((signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, 143)):
        started = start_either("run", "batch", "--", "sh", "-c", "echo here; exec sleep 60")
        assert started.line() == "here\n"
        started.process.send_signal(number)
        assert started.end().status == status
    assert run(*AS_JSON).document["status"] == {"counter": 0, "phase": "Done", "members": [], "lost": 0}


def test_signals_that_were_ignored_stay_ignored(start: Starting, run: Command) -> None:
    """For the command too: it is what nohup is for, and how a script's background survives Ctrl-C."""
    start.program_of_command = ("sh", "-c", 'trap "" HUP INT; exec "$@"', "sh", *GROUPER)
    started = start("run", "batch", "--", *COUNTING)
    assert started.line() == "ready\n"
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        started.process.send_signal(number)
    found = started.end()
    assert (found.status, found.out) == (3, "SIGTERM\n")


def test_command_is_begun_with_signals_as_they_were(run: Command) -> None:
    """None is blocked, and those that Python ignores are not ignored: as by `subprocess`."""
    words = [sys.executable, "-I", "-S", "-c", SIGNALS]
    assert run("run", "batch", "--", *words).out == subprocess.run(words, check=True, capture_output=True, text=True).stdout


def test_signals_are_as_they_were_after_a_run(run: Command) -> None:
    """For a program that calls `main`."""
    before = signal.getsignal(signal.SIGCHLD), signal.pthread_sigmask(signal.SIG_BLOCK, [])
    run("run", "batch", "--", "true")
    assert (signal.getsignal(signal.SIGCHLD), signal.pthread_sigmask(signal.SIG_BLOCK, [])) == before


def test_signal_that_comes_while_it_joins(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command is not begun, and the member leaves."""
    register = InlineStore.register

    async def slowly(store: InlineStore, *words: str) -> object:
        signal.raise_signal(signal.SIGTERM)
        return await register(store, *words)

    monkeypatch.setattr(InlineStore, "register", slowly)
    found = run("run", "batch", "--", "echo", "here")
    assert (found.status, found.out, found.err) == (143, "", "")
    assert run(*AS_JSON).document["status"] == {"counter": 0, "phase": "Done", "members": [], "lost": 0}


def test_signal_that_comes_while_the_command_is_made(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets it, though it was not there yet when the terminal sent it."""
    spawn = Relay._spawn

    def spawned(relay: Relay, command: list[str]) -> int:
        pid = spawn(relay, command)
        signal.raise_signal(signal.SIGTERM)
        return pid

    monkeypatch.setattr(Relay, "_spawn", spawned)
    assert run("run", "batch", "--", "sleep", "60").status == 143


def test_signal_that_comes_too_late_for_the_command(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not keep the member from leaving, nor change the status."""
    withdraw = InlineStore.withdraw

    async def slowly(store: InlineStore, *words: Any) -> bool:
        signal.raise_signal(signal.SIGINT)
        return await withdraw(store, *words)

    monkeypatch.setattr(InlineStore, "withdraw", slowly)
    assert run("run", "batch", "--", "sh", "-c", "exit 7").status == 7
    assert run(*AS_JSON).document["status"] == {"counter": 0, "phase": "Done", "members": [], "lost": 0}


def test_kill_loses_the_member(start_either: Starting, run: Command) -> None:
    """Others see that it is gone, though it could say nothing."""
    started = start_either("run", "batch", "--", "sh", "-c", "echo here; cat")
    assert started.line() == "here\n"
    started.process.kill()
    started.process.wait()
    assert run(*AS_JSON).document["status"] == {"counter": 0, "phase": "Done", "members": [], "lost": 1}


# --- Ctrl-C, which the terminal sends to all

ON_TERMINAL: Final = "import os, sys; os.login_tty(0); os.execvp(sys.argv[1], sys.argv[1:])"
"""Begin a session whose terminal is the standard input."""


@pytest.fixture
def on_terminal(start_either: Starting, run: Command, terminal: Terminal) -> Started:
    """A command that runs in the foreground of a terminal."""
    start_either.program_of_command = (sys.executable, "-I", "-S", "-c", ON_TERMINAL, *start_either.program_of_command)
    ends = {"stdin": terminal.file, "stdout": terminal.file, "stderr": terminal.file}
    started = start_either("run", "batch", "--", *COUNTING, **ends)
    terminal.read_until("ready")
    return started


def test_ctrl_c_reaches_the_command_once(on_terminal: Started, terminal: Terminal, run: Command) -> None:
    """From the terminal; it is not passed on too."""
    terminal.write("\x03")
    terminal.read_until(r"\^C")
    on_terminal.process.send_signal(signal.SIGTERM)
    assert on_terminal.process.wait(30) == 3
    assert terminal.lines() == ["ready", "^CSIGINT SIGTERM"]


def test_second_ctrl_c_leaves_nothing_behind(on_terminal: Started, terminal: Terminal, run: Command) -> None:
    """Neither the command without the member, nor the member without the command."""
    for count in (1, 2, 3):
        terminal.write("\x03")
        terminal.read_until(r"\^C" * count)
    assert on_terminal.process.poll() is None
    assert len(members(run)) == 1
    on_terminal.process.send_signal(signal.SIGTERM)
    assert on_terminal.process.wait(30) == 3
    assert members(run) == []


@pytest.mark.parametrize(
    ("everybody", "in_our_group", "sent"), [(True, True, False), (True, False, True), (False, True, True), (False, False, True)]
)
def test_signal_is_not_passed_on_to_who_has_it(
    monkeypatch: pytest.MonkeyPatch, everybody: bool, in_our_group: bool, sent: bool
) -> None:
    """The terminal's goes to the whole process group, in which the command is unless it has left it."""
    took = iter([(signal.SIGINT, everybody), (signal.SIGCHLD, False)])
    kills: list[tuple[int, int]] = []

    def next_signal(relay: Relay) -> tuple[int, bool]:
        return next(took)

    def killed(pid: int, number: int) -> None:
        kills.append((pid, number))

    monkeypatch.setattr(Relay, "_spawn", always(12345))
    monkeypatch.setattr(Relay, "_next", next_signal)
    monkeypatch.setattr(os, "getpgid", always(os.getpgrp() if in_our_group else 12345))
    monkeypatch.setattr(os, "waitpid", always((12345, 0)))
    monkeypatch.setattr(os, "kill", killed)
    with Relay() as relay:
        assert relay.run(["work"]) == 0
    assert kills == [(12345, signal.SIGINT)] * sent


def test_command_that_cannot_be_signalled_is_waited_for(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that has become another user's."""
    took = [(signal.SIGTERM, False)]
    real = Relay._next

    def next_signal(relay: Relay) -> tuple[int, bool]:
        return took.pop() if took else real(relay)

    def refused(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(Relay, "_next", next_signal)
    monkeypatch.setattr(os, "kill", refused)
    assert run("run", "batch", "--", "sh", "-c", "exit 9").status == 9


def test_without_the_kernels_word_the_foreground_gets_ctrl_c_by_itself(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """On systems where `sigwaitinfo` is missing: what the terminal sends is not passed on, other signals are."""
    monkeypatch.delattr(signal, "sigwaitinfo")
    foreground = os.getpgrp()
    monkeypatch.setattr(os, "tcgetpgrp", always(foreground))
    with Relay() as relay:
        signal.raise_signal(signal.SIGINT)
        assert relay._next() == (signal.SIGINT, True)
        signal.raise_signal(signal.SIGTERM)
        assert relay._next() == (signal.SIGTERM, False)
        monkeypatch.setattr(os, "tcgetpgrp", always(foreground + 1))
        signal.raise_signal(signal.SIGINT)
        assert relay._next() == (signal.SIGINT, False)
    assert run("run", "batch", "--", "sh", "-c", "exit 9").status == 9


def test_without_a_terminal_no_signal_is_the_terminals(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, where there is none."""

    def none(number: int) -> int:
        raise OSError

    monkeypatch.delattr(signal, "sigwaitinfo")
    monkeypatch.setattr(os, "tcgetpgrp", none)
    with Relay() as relay:
        signal.raise_signal(signal.SIGINT)
        assert relay._next() == (signal.SIGINT, False)


# --- when the member is gone before the command


@pytest.mark.parametrize(("exit", "status"), [(0, 7), (9, 9)])
def test_group_is_deleted_meanwhile(run: Command, exit: int, status: int) -> None:
    """The command goes on; that is told at its end, and is the status if the command's says nothing."""
    script = f"{' '.join(GROUPER)} waitgroup delete batch; exit {exit}"
    found = run("run", "batch", "--", "sh", "-c", script)
    assert (found.status, found.out) == (status, "batch: deleted\n")
    assert found.err == "grouper: wait group 'batch' was deleted while the command ran: nobody was told that it ended\n"


@pytest.mark.parametrize(("exit", "status"), [(0, 5), (9, 9)])
def test_member_is_lost_meanwhile(run: Command, monkeypatch: pytest.MonkeyPatch, exit: int, status: int) -> None:
    """As where a lease ran out: the command goes on; that is told at its end, and is the status if the command's says nothing."""
    withdraw = InlineStore.withdraw

    async def lost(store: InlineStore, *words: Any) -> bool:
        assert await withdraw(store, *words)
        return await withdraw(store, *words)

    monkeypatch.setattr(InlineStore, "withdraw", lost)
    found = run("run", "batch", "--id", "w1", "--", "sh", "-c", f"exit {exit}")
    assert found.status == status
    assert found.err.startswith("grouper: wait group 'batch': member 'w1' was counted as lost while the command ran, ")


@pytest.mark.parametrize(
    ("kind", "method", "exit", "status"),
    [
        (InlineStore, "withdraw", 0, 1),
        (InlineStore, "withdraw", 9, 9),
        (Owning, "__aexit__", 0, 1),
        (Owning, "__aexit__", 9, 9),
        (InlineStore, "aclose", 0, 0),
        (InlineStore, "aclose", 9, 9),
    ],
)
def test_store_is_away_at_the_end(
    run: Command, monkeypatch: pytest.MonkeyPatch, kind: type[Any], method: str, exit: int, status: int
) -> None:
    """The command has ended, and its status is not lost; if it says nothing, and the member may not have left, it is told."""

    async def away(*_: object) -> None:
        raise Unavailable("the store does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(kind, method, away)
        found = run("run", "batch", "--", "sh", "-c", f"exit {exit}")
    assert found.status == status
    assert found.err.startswith("grouper: the store does not answer")
    assert found.err.count("\n") == 1


def test_without_the_signals_of_unix_there_is_no_run(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what else can be done."""
    monkeypatch.delattr(os, "posix_spawnp")
    found = run("run", "batch", "--", "true")
    assert (found.status, found.err[:44]) == (1, "grouper: `run` needs the processes and signals"[:44])


def test_empty_command_is_not_found(command: Command) -> None:
    """As of a variable that is not set; the member has left."""
    command("create", "batch")
    found = command("run", "batch", "--", "")
    assert (found.status, found.err) == (127, "grouper: the command is empty: say what to run after `--`\n")
    assert command.counter("batch") == 0
