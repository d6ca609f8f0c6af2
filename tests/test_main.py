"""Where a tree begins: `invoke` and `background` beside a block, `Sigmon`, and `run` as the whole program."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

import grouper
from grouper import ErrorTrace, Member, Ordered, Parallel, Process, Role, Sigmon, Signals, StopTimeout
from grouper import main as entry

from .groups.members import Puppet, deaf, fails, fails_later, fails_stopping, never_ready, returns, returns_ready, service

TERM, INT, QUIT, HUP, USR1 = signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1
EMBEDDERS: dict[str, Callable[[Any], AbstractAsyncContextManager[Process]]] = {
    "invoke": grouper.invoke,
    "background": grouper.background,
}
each_embedder = pytest.mark.parametrize("embed", EMBEDDERS.values(), ids=EMBEDDERS)


# invoke and background: what comes out


async def fails_unready(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
    """Fails a second after its start, and was not ready."""
    await trio.sleep(1)
    raise OSError("gone")


PROCESSES = {"fine": service, "fails unready": fails_unready, "fails ready": fails_later, "fails stopping": fails_stopping}

OUTCOMES = [
    # embedder, process, body: who raised what comes out, and how far the body came
    ("invoke", "fine", "ends", "", "whole"),
    ("invoke", "fine", "fails", "body", "whole"),
    ("invoke", "fine", "is cancelled", "", "begun"),
    ("invoke", "fails unready", "ends", "process", "not begun"),
    ("invoke", "fails unready", "fails", "process", "not begun"),
    ("invoke", "fails unready", "is cancelled", "", "not begun"),
    ("invoke", "fails ready", "ends", "process", "begun"),
    ("invoke", "fails ready", "fails", "body process", "begun"),
    ("invoke", "fails ready", "is cancelled", "", "begun"),
    ("invoke", "fails stopping", "ends", "process", "whole"),
    ("invoke", "fails stopping", "fails", "body process", "whole"),
    ("invoke", "fails stopping", "is cancelled", "process", "begun"),
    ("background", "fine", "ends", "", "whole"),
    ("background", "fine", "fails", "body", "whole"),
    ("background", "fine", "is cancelled", "", "begun"),
    ("background", "fails unready", "ends", "process", "whole"),
    ("background", "fails unready", "fails", "body process", "whole"),
    ("background", "fails unready", "is cancelled", "", "begun"),
    ("background", "fails ready", "ends", "process", "whole"),
    ("background", "fails ready", "fails", "body process", "whole"),
    ("background", "fails ready", "is cancelled", "", "begun"),
    ("background", "fails stopping", "ends", "process", "whole"),
    ("background", "fails stopping", "fails", "body process", "whole"),
    ("background", "fails stopping", "is cancelled", "process", "begun"),
]


def raised_by(error: BaseException | None) -> str:
    """Who raised what came out, bare where it was one."""
    if error is None:
        return ""
    if isinstance(error, BaseExceptionGroup):
        errors = cast("BaseExceptionGroup[BaseException]", error).exceptions
        assert len(errors) > 1
        return " ".join(sorted(map(raised_by, errors)))
    raisers: dict[type[BaseException], str] = {KeyError: "body", OSError: "process"}
    return raisers[type(error)]


@pytest.mark.parametrize(("embedder", "process", "body", "raised", "came"), OUTCOMES, ids=lambda value: value or "nothing")
async def test_outcome(embedder: str, process: str, body: str, raised: str, came: str) -> None:
    """What the body and the process do decides what comes out: bare if it is one, in a group if both have failed."""
    far, error = "not begun", None
    with trio.CancelScope(deadline=trio.current_time() + (0.5 if body == "is cancelled" else 100)) as scope:
        try:
            async with EMBEDDERS[embedder](PROCESSES[process]):
                far = "begun"
                try:
                    await trio.sleep(5)
                    far = "whole"
                finally:
                    if body == "fails":
                        raise KeyError
        except Exception as caught:
            error = caught
    assert (raised_by(error), far) == (raised, came)
    assert scope.cancelled_caught is (body == "is cancelled" and not raised)


# invoke and background: the way there


@each_embedder
async def test_process_is_stopped_politely_at_the_end_of_the_block(embed: Callable[[Any], Any]) -> None:
    """With SIGTERM, and the block waits for its end."""
    puppet = Puppet()
    async with embed(puppet) as process:
        await wait_all_tasks_blocked()
    assert puppet.log == ["+a", "SIGTERM a", "-a"]
    assert process.exit.ok


@each_embedder
async def test_process_is_killed_if_the_block_fails(embed: Callable[[Any], Any]) -> None:
    """And the block waits for its end."""
    puppet, process = Puppet(), cast("Any", None)
    with contextlib.suppress(ZeroDivisionError):
        async with embed(puppet) as process:
            await wait_all_tasks_blocked()
            raise ZeroDivisionError
    assert puppet.log == ["+a", "!a"]
    assert (process.exit.ok, process.exit.killed) == (True, True)


@each_embedder
async def test_process_that_does_not_stop_is_killed_after_its_grace(embed: Callable[[Any], Any]) -> None:
    """The root's grace holds at the end of the block: ten seconds, if its runner says nothing."""
    with pytest.raises(StopTimeout, match="the root had not stopped 10 s after SIGTERM and was killed"):
        async with embed(deaf):
            await wait_all_tasks_blocked()


@each_embedder
async def test_cancellation_while_the_process_stops_kills_it(embed: Callable[[Any], Any]) -> None:
    """And then goes on."""
    puppet = Puppet(polite=False)
    with trio.move_on_after(5) as scope:
        async with embed(puppet):
            await wait_all_tasks_blocked()
    assert scope.cancelled_caught
    assert puppet.log == ["+a", "SIGTERM a", "!a"]


@each_embedder
async def test_clean_exit_does_not_cancel_the_block(embed: Callable[[Any], Any]) -> None:
    """Nor does it raise at the end."""
    async with embed(returns_ready) as process:
        await trio.sleep(5)
        assert process.exit.ok


@each_embedder
async def test_trace_of_a_group_comes_out_itself(embed: Callable[[Any], Any]) -> None:
    """No nursery of the implementation wraps it, and it is the process's error."""
    process: Any = None
    with pytest.raises(ErrorTrace) as caught:
        async with embed(Ordered([("a", fails_later)])) as process:
            await trio.sleep(5)
    assert caught.value is process.exit.error


@each_embedder
async def test_block_that_raises_the_processs_error_raises_it_once(embed: Callable[[Any], Any]) -> None:
    """`raise_for_error()` in the block gives that error, and not a group of it and itself."""
    process: Any = None
    with pytest.raises(OSError, match="gone") as caught:
        async with embed(fails_later) as process:
            (await process.wait()).raise_for_error()
    assert caught.value is process.exit.error


@each_embedder
async def test_what_is_no_exception_comes_out_bare(embed: Callable[[Any], Any]) -> None:
    """SystemExit of a member deep in the tree ends the block as it would end the program."""
    quits = Puppet("q")

    async def quit_it() -> None:
        async with embed(Ordered([("web", Ordered([("q", quits)]))])) as process:
            await wait_all_tasks_blocked()
            quits.fail(SystemExit(7))
            await process.wait()

    with pytest.raises(SystemExit) as caught:
        await quit_it()
    assert caught.value.code == 7


@each_embedder
def test_what_is_no_runner_is_refused(embed: Callable[[Any], Any]) -> None:
    """By the call, before the block."""
    with pytest.raises(TypeError, match="is not a runner"):
        embed(3)


@each_embedder
async def test_blocks_can_be_nested(embed: Callable[[Any], Any]) -> None:
    """The inner process ends before the outer one."""
    log: list[str] = []
    async with embed(Puppet("outer", log)), embed(Puppet("inner", log)):
        await wait_all_tasks_blocked()
    assert log[2:] == ["SIGTERM inner", "-inner", "SIGTERM outer", "-outer"]


@each_embedder
async def test_process_sees_the_context_of_the_block(embed: Callable[[Any], Any]) -> None:
    """It is a task beside the block: a cancel scope around both cancels both."""
    puppet = Puppet()
    with trio.CancelScope() as scope:
        async with embed(puppet):
            await wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert puppet.log == ["+a", "!a"]


async def test_invoke_begins_when_the_process_is_ready() -> None:
    """And its value is there."""
    log: list[str] = []

    async def slow(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        await trio.sleep(3)
        log.append("ready")
        task_status.started("up")
        await signals.wait()

    async with grouper.invoke(slow) as process:
        log.append(f"block: {process.value}")
    assert log == ["ready", "block: up"]


async def test_background_begins_at_once() -> None:
    """The process need never be ready."""
    async with grouper.background(never_ready) as process:
        assert (process.ready_at, process.exit) == (None, None)


async def test_invoked_group_of_jobs_is_ready_when_they_have_returned() -> None:
    """A job is ready when it has returned, also as the root."""
    async with grouper.invoke(Parallel([Member("a", returns, role=Role.JOB)])) as process:
        exit = process.exit
        assert exit is not None
        assert (exit.ok, exit.was_ready) == (True, True)


async def test_invoke_of_what_returns_unready_raises() -> None:
    """At the start: the root is a service that must be ready."""
    with pytest.raises(grouper.ExitedBeforeReady, match="the root returned before it was ready"):
        async with grouper.invoke(returns):
            pytest.fail("the block has begun")


async def test_what_the_block_raises_beside_its_cancellation_comes_out_too() -> None:
    """A task of the block that fails when the process has failed is not lost, nor is the cancellation shown."""

    async def clumsy() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("in the block")

    async def both_fail() -> None:
        async with grouper.invoke(fails_later), trio.open_nursery() as nursery:
            nursery.start_soon(clumsy)
            nursery.start_soon(trio.sleep_forever)

    with pytest.raises(ExceptionGroup) as caught:
        await both_fail()
    assert repr(caught.value.exceptions) == (
        "(ExceptionGroup('Exceptions from Trio nursery', [KeyError('in the block')]), OSError('gone'))"
    )


async def test_block_of_several_tasks_fails_as_it_would_alone() -> None:
    """Beside a process that ends well, the group that the block's nursery raises comes out as it was."""

    async def clumsy() -> None:
        raise KeyError("in the block")

    async def block_fails() -> None:
        async with grouper.invoke(service), trio.open_nursery() as nursery:
            nursery.start_soon(clumsy)

    with pytest.raises(ExceptionGroup) as caught:
        await block_fails()
    assert repr(caught.value) == "ExceptionGroup('Exceptions from Trio nursery', [KeyError('in the block')])"


# Sigmon


real_time = pytest.mark.real_time


@pytest.fixture(autouse=True)
def same_handlers() -> Generator[None]:
    """Whatever a test leaves behind, the next one finds the handlers that Python begins with."""
    numbers = {number: signal.getsignal(number) for number in (TERM, INT, QUIT, USR1, HUP)}
    assert numbers[INT] is signal.default_int_handler
    yield
    for number, handler in numbers.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    """Send a signal to this very program."""
    os.kill(os.getpid(), number)


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in (TERM, INT, QUIT, USR1)]


@real_time
@pytest.mark.parametrize("number", [TERM, INT])
async def test_sigmon_stops_its_runner_at_the_operating_systems_signal(number: int) -> None:
    """SIGINT and SIGTERM are sent on."""
    puppet = Puppet()
    async with grouper.invoke(Sigmon(puppet)) as process:
        send(number)
        assert (await process.wait()).ok
    assert puppet.log == ["+a", f"{signal.Signals(number).name} a", "-a"]


@real_time
async def test_sigmon_forwards_what_it_was_told_to() -> None:
    """Beside the signals sent to its process."""
    puppet = Puppet()
    async with grouper.invoke(Sigmon(puppet, USR1, HUP)) as process:
        for number in (USR1, HUP):
            told = puppet.told
            send(number)
            await told.wait()
        process.signal(signal.SIGUSR2)
    assert puppet.log == ["+a", "SIGUSR1 a", "SIGHUP a", "SIGUSR2 a", "SIGTERM a", "-a"]


@real_time
async def test_sigmon_gives_the_signals_back() -> None:
    """When its runner has exited, the handlers are those from before."""
    before = handlers()
    async with grouper.invoke(Sigmon(service, USR1)):
        assert handlers() != before
    assert handlers() == before


@real_time
async def test_sigmon_raises_what_its_runner_does() -> None:
    """Bare, though a nursery is at work."""
    with pytest.raises(OSError, match="gone"):
        async with grouper.invoke(Sigmon(fails)):
            pass


@real_time
async def test_sigmon_is_ready_when_its_runner_is() -> None:
    """With its value; and it ends when its runner does."""
    async with grouper.invoke(Sigmon(returns_ready)) as process:
        assert process.value == "was up"
        assert (await process.wait()).ok


@real_time
async def test_sigmon_is_cancelled_like_any_runner() -> None:
    """A kill ends its runner and gives the signals back."""
    before = handlers()
    async with grouper.background(Ordered([Member("a", Sigmon(deaf), role=Role.OPTIONAL), ("b", service)])) as root:
        await root.wait_ready()
        root.children[0].kill()
        assert (await root.children[0].wait()).killed
        assert handlers() == before


@real_time
async def test_group_in_a_sigmon_keeps_its_place_in_the_tree() -> None:
    """Paths beneath it are those that they were without it."""
    async with grouper.invoke(Ordered([("web", Sigmon(Ordered([("api", service)])))])) as root:
        assert [each.path for each in root.children[0].children] == ["web/api"]


def test_sigmon_of_no_runner_is_refused() -> None:
    """When it is made."""
    with pytest.raises(TypeError, match=r"^Sigmon: 3 is not a runner"):
        Sigmon(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


BAD_FORWARDS: dict[str, tuple[Any, type[Exception], str]] = {
    "SIGKILL": (signal.SIGKILL, ValueError, "SIGKILL cannot be taken: no program can catch it"),
    "SIGSTOP": (signal.SIGSTOP, ValueError, "SIGSTOP cannot be taken"),
    "no number that there is": (9999, ValueError, "9999"),
    "negative": (-1, ValueError, "a signal is a positive number"),
    "a name": ("SIGHUP", TypeError, "a signal is a number such as signal.SIGTERM, not 'SIGHUP'"),
}


FORWARDERS: dict[str, Callable[[Any], object]] = {
    "Sigmon": lambda number: Sigmon(service, number),
    "run": lambda number: grouper.run(ends_soon, forward=[number]),
}


@pytest.mark.parametrize("use", FORWARDERS.values(), ids=FORWARDERS)
@pytest.mark.parametrize(("number", "error", "text"), BAD_FORWARDS.values(), ids=BAD_FORWARDS)
def test_what_cannot_be_forwarded_is_refused(use: Callable[[Any], object], number: Any, error: type[Exception], text: str) -> None:
    """Before anything is started."""
    with pytest.raises(error, match=text):
        use(number)


@real_time
def test_sigmon_outside_the_main_thread_is_an_error() -> None:
    """The operating system's signals are the main thread's."""
    assert isinstance(raised_in_a_thread(lambda: trio.run(embedded, Sigmon(service))), RuntimeError)


async def embedded(runner: Any) -> None:
    async with grouper.invoke(runner):
        pass


def raised_in_a_thread(fn: Callable[[], object]) -> BaseException | None:
    raised: list[BaseException] = []

    def work() -> None:
        try:
            fn()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return raised[0] if raised else None


# run, in this very program


async def ends_soon(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
    """Is ready, and returns a moment later."""
    task_status.started()
    await trio.sleep(0.01)


class SendsItself:
    """Sends signals to this program once it is ready, each when the one before has come; then ends when told to, or killed."""

    def __init__(self, *numbers: int, polite: bool = True) -> None:
        self.numbers, self.polite = numbers, polite
        self.heard: list[int] = []

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        task_status.started()
        for number in self.numbers:
            await wait_all_tasks_blocked()
            send(number)
            self.heard.append(await anext(signals))
        if not self.polite:
            await trio.sleep_forever()


@real_time
def test_run_returns_0_after_a_clean_end() -> None:
    """A root that returns ends the program."""
    assert grouper.run(ends_soon) == 0


@real_time
def test_run_returns_1_after_a_failure_and_prints_the_trace(capsys: pytest.CaptureFixture[str]) -> None:
    """To stderr: the tree of what failed and nothing else."""
    assert grouper.run(Ordered([("web", Ordered([("api", fails)]))])) == 1
    assert capsys.readouterr() == ("", "1 of 1 members failed:\n  web/api: OSError: gone  <- first\n")


@real_time
def test_run_prints_the_traceback_of_a_root_that_is_no_group(capsys: pytest.CaptureFixture[str]) -> None:
    """As Python would."""
    assert grouper.run(fails) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Traceback (most recent call last):")
    assert "OSError: gone" in err


@real_time
@pytest.mark.parametrize("number", [TERM, INT, QUIT])
def test_stop_signal_stops_the_tree(number: int) -> None:
    """Each of the three, politely, with the signal that came."""
    root = SendsItself(number)
    assert grouper.run(Ordered([("a", root)])) == 0
    assert root.heard == [number]


@real_time
def test_forwarded_signal_goes_to_the_members() -> None:
    """And the tree stays up."""
    root = SendsItself(USR1, HUP, TERM)
    assert grouper.run(Ordered([("a", root)]), forward=[USR1, HUP]) == 0
    assert root.heard == [USR1, HUP, TERM]


@real_time
def test_second_stop_signal_kills_and_is_the_status(caplog: pytest.LogCaptureFixture) -> None:
    """128 and its number; the log says so."""
    caplog.set_level(logging.INFO, "grouper")

    class Stubborn:
        async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
            task_status.started()
            send(TERM)
            await signals.wait()
            send(INT)
            await trio.sleep_forever()

    assert grouper.run(Ordered([("a", Stubborn())])) == 128 + INT
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "received SIGINT while stopping: what is left is killed",
        "the root is killed",
        "member 'a' is killed with its group",
    ]
    assert "member 'a' was killed" in caplog.text


@real_time
@pytest.mark.parametrize("forced", [False, True])
def test_handlers_are_those_from_before(forced: bool) -> None:
    """After a polite end and after a forced one: Ctrl-C is a KeyboardInterrupt again."""
    before = handlers()
    numbers: list[Any] = []

    class Root:
        async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
            task_status.started()
            send(TERM)
            await signals.wait()
            if forced:
                send(TERM)
                await trio.sleep_forever()
            numbers.extend(handlers())

    assert grouper.run(Root(), forward=[USR1]) == (128 + TERM if forced else 0)
    assert handlers() == before
    assert forced or numbers != before


@real_time
def test_failure_while_forced_does_not_change_the_status() -> None:
    """The second signal is why it ended."""

    class Root:
        async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
            task_status.started()
            send(TERM)
            await signals.wait()
            send(INT)
            try:
                await trio.sleep_forever()
            finally:
                raise OSError("while being killed")

    assert grouper.run(Ordered([("a", Root())])) == 128 + INT


@real_time
def test_life_of_the_tree_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Start, ready, signal and end of each member and of the root, and the signals that came, in order."""
    caplog.set_level(logging.INFO, "grouper")
    grouper.run(Ordered([("web", Ordered([("api", SendsItself(TERM))]))]))
    assert [(record.name, record.levelname, record.getMessage()) for record in caplog.records] == [
        ("grouper", "INFO", text)
        for text in [
            "the root started",
            "member 'web' started",
            "member 'web/api' started",
            "member 'web/api' is ready",
            "member 'web' is ready",
            "the root is ready",
            "received SIGTERM",
            "the root is told SIGTERM",
            "member 'web' is told SIGTERM",
            "member 'web/api' is told SIGTERM and has 10 s to stop",
            "member 'web/api' exited",
            "member 'web' exited",
            "the root exited",
        ]
    ]
    received = next(record for record in caplog.records if record.getMessage() == "received SIGTERM")
    assert {key: getattr(received, key) for key in ("fact", "member", "signal")} == {
        "fact": "received",
        "member": "",
        "signal": "SIGTERM",
    }


@real_time
def test_failures_are_logged_with_their_tracebacks(caplog: pytest.LogCaptureFixture) -> None:
    """Once, where they happened: the groups above are told of without."""
    grouper.run(Ordered([("web", Ordered([("api", fails)]))]))
    errors = [
        (record.getMessage().partition(" after")[0], record.exc_info is not None)
        for record in caplog.records
        if record.levelno == logging.ERROR
    ]
    assert errors == [
        ("member 'web/api' (fails) failed", True),
        ("member 'web' (Ordered) failed", False),
        ("the root (Ordered) failed", False),
    ]


@real_time
def test_what_is_no_exception_is_raised_by_run() -> None:
    """SystemExit of a member ends the program with its code, after an ordered stop."""
    cast = Puppet("a")

    async def quits(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        raise SystemExit(7)

    with pytest.raises(SystemExit) as caught:
        grouper.run(Ordered([("a", cast), ("q", quits)]))
    assert caught.value.code == 7
    assert cast.log == ["+a", "SIGTERM a", "-a"]


def test_run_of_no_runner_is_refused() -> None:
    """By the call."""
    with pytest.raises(TypeError, match="3 is not a runner"):
        grouper.run(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@real_time
def test_run_outside_the_main_thread_is_an_error() -> None:
    """The operating system's signals are the main thread's: nothing is started."""
    puppet = Puppet()
    assert isinstance(raised_in_a_thread(lambda: grouper.run(puppet)), RuntimeError)
    assert puppet.log == []


# run, as a program of its own


HEAD = """
import logging, os, signal, sys, time
import grouper, trio

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s %(message)s")

async def service(signals, *, task_status):
    task_status.started()
    with signals.cancelling():
        await trio.sleep_forever()

async def deaf(signals, *, task_status):
    task_status.started()
    async for number in signals:
        print("heard", signal.Signals(number).name)

async def stubborn(signals, *, task_status):
    task_status.started()
    with trio.CancelScope(shield=True):
        await trio.sleep(SECONDS)
"""


class Program:
    """A program in an OS process, with what it prints."""

    def __init__(self, code: str, seconds: float = 60) -> None:
        text = HEAD.replace("SECONDS", str(seconds)) + textwrap.dedent(code)
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
        )
        self.watchdog = threading.Timer(60, self.process.kill)
        self.watchdog.start()
        self.lines: list[str] = []

    def until(self, text: str) -> None:
        """Read until a line is `text`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if self.lines[-1] == text:
                return
        pytest.fail(f"{text!r} is not in {self.lines}, {self.process.stderr and self.process.stderr.read()}")

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def status(self) -> int:
        """Wait for the end."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.lines.extend(self.process.stdout.read().splitlines())
        self.err = self.process.stderr.read()
        return self.process.wait()


@contextlib.contextmanager
def program(code: str, **options: Any) -> Generator[Program]:
    running = Program(code, **options)
    try:
        yield running
    finally:
        running.watchdog.cancel()
        running.process.kill()
        running.process.communicate()


STATUSES: dict[str, tuple[str, list[int], int]] = {
    "SIGTERM": ("service", [TERM], 0),
    "SIGINT": ("service", [INT], 0),
    "SIGTERM, SIGTERM": ("deaf", [TERM, TERM], 143),
    "SIGINT, SIGINT": ("deaf", [INT, INT], 130),
    "SIGINT, SIGTERM": ("deaf", [INT, TERM], 143),
    "SIGTERM, SIGQUIT": ("deaf", [TERM, QUIT], 131),
    "SIGTERM, SIGTERM, SIGTERM": ("stubborn", [TERM, TERM, TERM], -TERM),
    "SIGINT, SIGINT, SIGINT": ("stubborn", [INT, INT, INT], -INT),
    "SIGTERM, SIGINT, SIGTERM": ("stubborn", [TERM, INT, TERM], -TERM),
}


@real_time
@pytest.mark.parametrize(("member", "numbers", "status"), STATUSES.values(), ids=STATUSES)
def test_exit_status_of_a_program_that_was_signalled(member: str, numbers: list[int], status: int) -> None:
    """The first stop signal is polite, the second one forces the end, the third is the operating system's."""
    with program(f"sys.exit(grouper.run(grouper.Ordered([('a', {member})])))") as running:
        running.until("INFO the root is ready")
        for number, wait in zip(
            numbers, ["INFO received {}", "WARNING received {} while stopping: what is left is killed", ""], strict=False
        ):
            running.send(number)
            if wait:
                running.until(wait.format(signal.Signals(number).name))
        assert running.status() == status


@real_time
def test_exit_status_of_a_program_that_failed() -> None:
    """1, and its trace is on stderr."""
    code = """
        async def fails(signals, *, task_status):
            raise OSError("gone")
        sys.exit(grouper.run(grouper.Ordered([("db", service), ("web", fails)])))
    """
    with program(code) as running:
        assert running.status() == 1
        assert running.err == "1 of 2 members failed:\n  web: OSError: gone  <- first\n"


@real_time
def test_exit_status_of_a_member_that_exits_the_program() -> None:
    """`sys.exit(7)` in a member is the program's, after the others were stopped."""
    code = """
        async def quits(signals, *, task_status):
            sys.exit(7)
        sys.exit(grouper.run(grouper.Ordered([("db", service), ("web", quits)])))
    """
    with program(code) as running:
        assert running.status() == 7
        assert "INFO member 'db' exited" in running.lines


@real_time
def test_signal_that_is_not_forwarded_does_what_it_does() -> None:
    """`run` takes the stop signals and those named, and no more."""
    with program("grouper.run(service)") as running:
        running.until("INFO the root is ready")
        running.send(USR1)
        assert running.status() == -USR1


@real_time
def test_forwarded_signals_do_not_reorder() -> None:
    """Many, to a program that is busy, reach the member; a stop after them still comes."""
    with program("sys.exit(grouper.run(grouper.Ordered([('a', deaf)]), forward=[signal.SIGUSR1, signal.SIGHUP]))") as running:
        running.until("INFO the root is ready")
        for name in ("SIGUSR1", "SIGHUP", "SIGTERM"):
            running.send(signal.Signals[name])
            running.until(f"heard {name}")
        running.send(TERM)
        assert running.status() == 143


@real_time
def test_member_that_ignores_its_kill_is_named_with_its_stack() -> None:
    """Two seconds after the kill, the log tells where it sits; the program ends when it has ended."""
    with program("sys.exit(grouper.run(grouper.Ordered([('web', grouper.Ordered([('api', stubborn)]))])))", seconds=3) as running:
        running.until("INFO the root is ready")
        running.send(TERM)
        running.until("INFO received SIGTERM")
        running.send(TERM)
        running.until("WARNING member 'web/api' ignores its kill and still runs 2.0 s after it; it sits at")
        assert running.status() == 143
        assert "task api:" in running.lines
        assert any(line.endswith("in stubborn") for line in running.lines)


@real_time
def test_program_goes_on_after_run() -> None:
    """Ctrl-C is a KeyboardInterrupt again, also after a forced end."""
    code = """
        print("status", grouper.run(grouper.Ordered([("a", deaf)])))
        try:
            print("after")
            time.sleep(3)
        except KeyboardInterrupt:
            print("interrupted")
    """
    with program(code) as running:
        running.until("INFO the root is ready")
        running.send(TERM)
        running.until("INFO received SIGTERM")
        running.send(TERM)
        running.until("status 143")
        running.until("after")
        running.send(INT)
        running.until("interrupted")
        assert running.status() == 0


@pytest.mark.parametrize("taken", [signal.SIGTERM, signal.SIGHUP])
def test_snapshot_signal_has_no_other_meaning(taken: int) -> None:
    """A stop signal, and one that is forwarded, are refused."""
    with pytest.raises(ValueError, match="has a meaning already"):
        grouper.run(Ordered([]), forward=[signal.SIGHUP], snapshot_signal=taken)


@pytest.mark.real_time
def test_tree_is_printed_at_the_snapshot_signal(capsys: pytest.CaptureFixture[str]) -> None:
    """It goes on after that."""

    async def asks(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        os.kill(os.getpid(), signal.SIGUSR1)
        while "asks" not in "".join(told):
            await trio.lowlevel.checkpoint()
            told.append(capsys.readouterr().err)

    told: list[str] = []
    assert grouper.run(Ordered([("asks", asks)]), snapshot_signal=signal.SIGUSR1) == 0
    assert "ready" in "".join(told)


async def test_what_ignores_its_kill_is_printed_with_the_tree(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the stack where it sits."""

    async def stubborn(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        with trio.CancelScope(shield=True):
            await trio.sleep(10)

    embedded = entry.Embedded(Ordered([Member("web", stubborn, role=Role.OPTIONAL), ("api", service)]), attached=False)
    async with embedded as process:
        await process.wait_ready()
        process["web"].kill()
        await trio.sleep(3)
        entry.Program(embedded, frozenset())._print_snapshot()
    printed = capsys.readouterr().err
    assert "member 'web' ignores its kill and still runs 3.0 s after it; it sits at" in printed
    assert "await trio.sleep(10)" in printed


async def test_member_finds_its_tree() -> None:
    """Through wrappers too; the root is what was run."""
    found: list[Process] = []

    async def looks(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        found.append(grouper.tree_of(signals))
        task_status.started()
        await signals.wait()

    async with grouper.invoke(Ordered([("web", Parallel([("api", grouper.Proxy(Signals(), looks))]))])) as process:
        assert found == [process]


def test_signals_of_no_group_have_no_tree() -> None:
    """That is said."""
    with pytest.raises(LookupError, match="belong to no tree"):
        grouper.tree_of(Signals())
