"""Commands, real ones: their status, their last words, and that none is left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from grouper import NotReady
from grouper.readiness import CheckFailed, CheckTimeout, command, poll, probe
from grouper.readiness.commands import CommandCheck

pytestmark = pytest.mark.real_time


def python(code: str) -> CommandCheck:
    return command(sys.executable, "-c", code)


async def reason(check: CommandCheck) -> str:
    """Why it is not ready."""
    with pytest.raises(NotReady) as told:
        await probe(check, name="x", timeout=60)
    return str(told.value).removeprefix("check 'x' is not ready: ")


async def test_status_0_is_ready() -> None:
    """Whatever it writes."""
    await probe(python("print('no')"))


async def test_another_status_is_not_yet() -> None:
    """It is told with the last line that is not empty, of either output."""
    assert await reason(python("raise SystemExit(3)")) == "it exited with status 3"
    code = "import sys; print('first'); print('  second\\n\\n', file=sys.stderr); sys.exit(1)"
    assert await reason(python(code)) == "it exited with status 1: second"


async def test_a_signal_is_not_yet() -> None:
    """Its name is told, if it has one."""
    assert await reason(python("import os; os.kill(os.getpid(), 9)")) == "it was killed by SIGKILL"
    assert await reason(python("import os; os.kill(os.getpid(), 40)")) == "it was killed by signal 40"


async def test_much_output_is_no_trouble() -> None:
    """Only its end is read, and only so much of it is told."""
    code = "import sys; sys.stdout.write('x' * 1000000 + '\\n' + 'y' * 1000); sys.exit(1)"
    assert await reason(python(code)) == f"it exited with status 1: {'y' * 200}..."
    code = "import sys; sys.stdout.buffer.write(b'\\xff\\n'); sys.exit(1)"
    assert await reason(python(code)) == "it exited with status 1: \ufffd"


async def test_it_reads_nothing() -> None:
    """Its standard input is at its end."""
    await probe(python("import sys; assert sys.stdin.read() == ''"), timeout=60)


async def test_there_is_no_shell() -> None:
    """Each argument is one."""
    await probe(command(Path(sys.executable), "-c", "import sys; assert sys.argv[1:] == ['$HOME *', '']", "$HOME *", ""))


@pytest.mark.parametrize("name", ["no-such-command-anywhere", "/", "/dev/null"])
async def test_what_cannot_be_run_has_failed(name: str) -> None:
    """Waiting does not cure that."""
    with pytest.raises(CheckFailed, match=name) as told:
        await probe(command(name))
    assert isinstance(told.value.__cause__, OSError)


async def test_a_poll_runs_it_until_it_is_ready(tmp_path: Path) -> None:
    """Here, the third time."""
    log = tmp_path / "log"
    log.touch()
    check = python(f"f = open({str(log)!r}, 'a+'); print('x', file=f); f.flush(); f.seek(0); exit(len(f.read()) < 6)")
    await poll(check, every=0.01, timeout=60)
    assert log.read_text() == "x\n" * 3


# None is left behind


def still_a_child(pid: int) -> None:
    os.waitpid(pid, os.WNOHANG)


@attrs.define
class Witness:
    """A pipe that a command and all its children hold open, and the command's first word in it: its number."""

    pipe: trio.lowlevel.FdStream
    pid: int = 0
    text: bytes = b""

    async def word(self) -> int:
        with trio.fail_after(60):
            while b"\n" not in self.text:
                more = await self.pipe.receive_some()
                assert more, "it has ended before it said a word"
                self.text += more
        word, _, self.text = self.text.partition(b"\n")
        return int(word)

    async def gone(self) -> None:
        """Wait until nobody holds the pipe any more."""
        with trio.fail_after(60):
            while await self.pipe.receive_some():
                pass

    async def waited_for(self) -> None:
        """See that it has ended, and that this program has waited for it."""
        await self.gone()
        with pytest.raises(ChildProcessError):
            still_a_child(self.pid)


@contextlib.asynccontextmanager
async def witnessed(
    check: CommandCheck, fifo: Path, *, timeout: float = 60
) -> AsyncGenerator[tuple[Witness, trio.CancelScope, list[Exception], trio.Event]]:
    """Ask a check whose command opens `fifo`; the block runs when it has. At its end the question must have ended."""
    outcome: list[Exception] = []
    scope = trio.CancelScope()
    ended = trio.Event()

    async def ask() -> None:
        with scope:
            try:
                await probe(check, name="x", timeout=timeout)
            except Exception as error:
                outcome.append(error)
        ended.set()

    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(fifo, os.O_WRONLY)  # else the pipe would be at its end before the command opens it
    async with trio.lowlevel.FdStream(reading) as pipe, trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        witness = Witness(pipe)
        try:
            witness.pid = await witness.word()
        finally:
            os.close(writing)
        yield witness, scope, outcome, ended
        with trio.fail_after(60):
            await ended.wait()


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


def lasting(fifo: Path, more: str = "pass") -> CommandCheck:
    """It says its number, and sleeps."""
    code = (
        f"import os, signal, time; f = open({str(fifo)!r}, 'w'); {more}; print(os.getpid(), file=f, flush=True); time.sleep(1000)"
    )
    return python(code)


async def test_a_cancellation_kills_it(fifo: Path) -> None:
    """And waits for it: it is no zombie when the cancellation goes on."""
    async with witnessed(lasting(fifo), fifo) as (witness, scope, outcome, ended):
        scope.cancel()
        await ended.wait()
        await witness.waited_for()
    assert scope.cancelled_caught
    assert outcome == []


async def test_a_timeout_kills_it(fifo: Path) -> None:
    """The outcome is the timeout, not the status with which it was killed."""
    async with witnessed(lasting(fifo), fifo, timeout=2) as (witness, _, outcome, ended):
        await ended.wait()
        await witness.waited_for()
    assert list(map(type, outcome)) == [CheckTimeout]


@pytest.mark.parametrize(
    "before",
    ["signal.signal(signal.SIGTERM, signal.SIG_IGN)", "os.setpgid(0, os.getpgid(os.getppid()))"],
    ids=["ignores SIGTERM", "leaves its process group"],
)
async def test_a_command_that_defends_itself_is_killed(fifo: Path, before: str) -> None:
    """There is nothing that it could do."""
    async with witnessed(lasting(fifo, before), fifo) as (witness, scope, _, ended):
        scope.cancel()
        await ended.wait()
        await witness.waited_for()


async def test_its_children_are_killed_with_it(fifo: Path) -> None:
    """A shell's pipeline, for example."""
    check = command("sh", "-c", f"exec 3>'{fifo}'; echo $$ >&3; sleep 1000 | sleep 1000; true")
    async with witnessed(check, fifo) as (witness, scope, _, ended):
        scope.cancel()
        await ended.wait()
        await witness.waited_for()


async def test_what_it_leaves_in_the_background_is_not_waited_for(fifo: Path) -> None:
    """Although that holds its output open; nor is it killed, for the command has ended as it wanted."""
    check = command("sh", "-c", f"exec 3>'{fifo}'; echo $$ >&3; sh -c 'echo $$ >&3; exec sleep 1000' & echo out; exit 7")
    async with witnessed(check, fifo) as (witness, _, outcome, ended):
        child = await witness.word()
        await ended.wait()
        os.kill(child, signal.SIGKILL)
        await witness.gone()
    assert str(outcome[0]) == "check 'x' is not ready: it exited with status 7: out"


def test_names() -> None:
    """As one would write it in a shell."""
    assert command("pg_isready", "-h", "my db").name == "command pg_isready -h 'my db'"
    assert command(Path("a"), Path("b")) == command("a", "b")


@pytest.mark.parametrize(
    ("argv", "kind", "told"),
    [
        ((), ValueError, "command: there is none"),
        (("",), ValueError, "command: the path is empty"),
        ((5,), TypeError, "command: 5 is not a string"),
        (("sleep", 5), TypeError, "command: 5 is not a string: give each argument as one, such as '5'"),
        ((["sleep", "5"],), TypeError, "is not a string"),
    ],
)
def test_bad_arguments_are_refused_by_name(argv: tuple[Any, ...], kind: type[Exception], told: str) -> None:
    """When the check is made."""
    with pytest.raises(kind, match=told):
        command(*argv)
