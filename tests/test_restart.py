"""Running a runner again: the `Restarter`, its callback, and `restart_on`."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import grouper
from grouper import Ordered, Restarter, Signals, restart_on
from grouper.runner import RunnerLike

from .groups.members import child, fails, returns_ready, service, watched

TERM, HUP = signal.SIGTERM, signal.SIGHUP


class Load:
    """A callback that answers from a list, and keeps what it was asked."""

    def __init__(self, *answers: RunnerLike | None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[RunnerLike, str]] = []

    async def __call__(self, runner: RunnerLike, error: Exception | None) -> RunnerLike | None:
        self.asked.append((runner, repr(error)))
        return self.answers.pop(0)


class Numbered:
    """Is ready with its number, and ends when told to."""

    def __init__(self, number: int, log: list[str]) -> None:
        self.number, self.log = number, log
        self.end = trio.Event()

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        self.log.append(f"start {self.number}")
        task_status.started(self.number)
        with signals.cancelling():
            await self.end.wait()


# The callback


async def test_load_is_asked_after_each_exit() -> None:
    """It gets the runner that has exited and its error, None for a clean exit; None ends it."""
    load = Load(fails, returns_ready, None)
    async with grouper.invoke(Restarter(returns_ready, load)) as process:
        assert (await process.wait()).ok
    assert load.asked == [(returns_ready, "None"), (fails, "OSError('gone')"), (returns_ready, "None")]


async def test_last_error_is_raised() -> None:
    """When `load` gives up, the error that it was asked about is the Restarter's."""
    with pytest.raises(OSError, match="gone"):
        async with grouper.invoke(Restarter(returns_ready, Load(fails, None))) as process:
            await process.wait()


async def test_earlier_error_is_forgotten() -> None:
    """A runner that failed, and was followed by one that ended well, has not failed."""
    async with watched(Restarter(fails, Load(returns_ready, None))) as process:
        assert (await process.wait()).ok


async def test_error_of_load_is_the_restarters() -> None:
    """What the callback raises passes."""

    async def load(runner: RunnerLike, error: Exception | None) -> RunnerLike | None:
        raise KeyError("no such runner")

    async with watched(Restarter(returns_ready, load)) as process:
        assert isinstance((await process.wait()).error, KeyError)


async def test_base_exception_is_not_asked_about() -> None:
    """SystemExit, and what else is no Exception, ends it at once."""

    async def leave(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        raise SystemExit(3)

    load = Load()
    with pytest.raises(SystemExit):
        async with grouper.background(Restarter(leave, load)) as process:
            await process.wait()
    assert load.asked == []


# Ready


async def test_only_the_first_ready_is_passed_on() -> None:
    """It is ready with the value of the first runner that is, and stays so."""
    log: list[str] = []
    runners = [Numbered(number, log) for number in range(3)]
    async with grouper.invoke(Restarter(runners[0], Load(*runners[1:]))) as process:
        runners[0].end.set()
        runners[1].end.set()
        await wait_all_tasks_blocked()
        assert process.value == 0
    assert log == ["start 0", "start 1", "start 2"]


async def test_ready_with_the_first_that_is_ready() -> None:
    """A runner that failed before it was ready does not count."""
    async with grouper.invoke(Restarter(fails, Load(service))) as process:
        assert process.value == "up"


async def test_started_twice_by_one_runner_is_an_error() -> None:
    """Each of the runners may be ready once."""

    async def twice(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        task_status.started()
        task_status.started()

    async with watched(Restarter(twice, Load(None))) as process:
        assert "started() a second time" in str((await process.wait()).error)


# Signals


async def test_signals_go_to_the_runner_of_the_moment_and_unread_ones_to_the_next() -> None:
    """What a runner did not read is read by the one after it."""
    heard: list[int] = []

    async def one_only(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        task_status.started()
        heard.append(await anext(signals))

    async with grouper.invoke(Restarter(one_only, Load(one_only, one_only, None))) as process:
        process.signal(HUP)
        process.signal(signal.SIGUSR1)
        process.signal(signal.SIGUSR2)
        assert (await process.wait()).ok
    assert heard == [HUP, signal.SIGUSR1, signal.SIGUSR2]


async def test_nobody_is_started_after_a_stop_signal() -> None:
    """A runner that stopped because it was told to is not asked about: the Restarter ends as it did."""
    load = Load()
    async with grouper.invoke(Restarter(service, load)) as process:
        process.signal(TERM)
        assert (await process.wait()).ok
    assert load.asked == []


async def test_error_after_a_stop_signal_is_raised() -> None:
    """A runner that fails while it stops has failed."""

    async def clumsy(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        task_status.started()
        await signals.wait()
        raise OSError("while stopping")

    with pytest.raises(OSError, match="while stopping"):
        async with grouper.invoke(Restarter(clumsy, Load())):
            pass


async def test_stop_signal_cancels_load() -> None:
    """In the middle of a backoff: the Restarter ends with the error that `load` was asked about, and starts nobody."""
    asked = trio.Event()
    log: list[str] = []

    async def load(runner: RunnerLike, error: Exception | None) -> RunnerLike | None:
        asked.set()
        await trio.sleep(3000)
        return Numbered(1, log)

    async with watched(Restarter(fails, load)) as process:
        await asked.wait()
        process.signal(TERM)
        assert isinstance((await process.wait()).error, OSError)
    assert log == []


async def test_pass_through_signal_does_not_cancel_load() -> None:
    """It waits for the next runner."""
    go = trio.Event()
    heard: list[int] = []

    async def load(runner: RunnerLike, error: Exception | None) -> RunnerLike | None:
        await go.wait()
        return listen

    async def listen(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        task_status.started()
        heard.append(await anext(signals))
        await signals.wait()

    async with grouper.background(Restarter(returns_ready, load)) as process:
        await wait_all_tasks_blocked()
        process.signal(HUP)
        await wait_all_tasks_blocked()
        assert process.exit is None
        go.set()
        await wait_all_tasks_blocked()
    assert heard == [HUP]


async def test_stop_signal_in_the_callback_starts_nobody() -> None:
    """A stop signal that `load` itself brings about counts, though it answered with a runner."""
    log: list[str] = []
    extra = Signals()

    async def load(runner: RunnerLike, error: Exception | None) -> RunnerLike | None:
        extra.send(TERM)
        return Numbered(1, log)

    async with watched(grouper.Proxy(extra, Restarter(returns_ready, load))) as process:
        assert (await process.wait()).ok
    assert log == []


async def test_restarted_group_keeps_its_place_in_the_tree() -> None:
    """The members of a restarted group have the paths that they had before."""
    group = Ordered([("api", returns_ready)])
    async with grouper.background(Ordered([("web", Restarter(group, Load(Ordered([("api", service)]))))])) as root:
        await wait_all_tasks_blocked()
        assert [(each.path, each.state) for each in child(root, "web").children] == [("web/api", grouper.State.READY)]


# What is refused


def test_runner_is_checked() -> None:
    """When the Restarter is made."""
    with pytest.raises(TypeError, match=r"^Restarter: 3 is not a runner"):
        Restarter(3, Load())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_load_is_checked() -> None:
    """The error says what `load` is."""
    with pytest.raises(TypeError, match=r"Restarter: load=None is no function: use `async def load\(runner, error\)`"):
        Restarter(service, None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_what_load_returned_is_checked() -> None:
    """A callback that returns no runner is told so."""
    async with watched(Restarter(returns_ready, Load(3))) as process:  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        assert "Restarter: what load returned: 3 is not a runner" in str((await process.wait()).error)


# restart_on


class Failing:
    """Raises its errors, one a run, then is ready and stays."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.runs = 0

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        self.runs += 1
        if self.errors:
            raise self.errors.pop(0)
        await service(signals, task_status=task_status)


ERRORS: dict[str, tuple[Exception, bool]] = {
    "named": (OSError(), True),
    "a subclass": (ConnectionResetError(), True),
    "the other that is named": (KeyError(), True),
    "in a group": (ExceptionGroup("", [ValueError(), ExceptionGroup("", [OSError()])]), True),
    "in a trace": (grouper.ErrorTrace("", [OSError()]), True),
    "another": (ValueError(), False),
    "a group of others": (ExceptionGroup("", [ValueError()]), False),
}


@pytest.mark.parametrize(("error", "again"), ERRORS.values(), ids=ERRORS)
async def test_restart_on(error: Exception, again: bool) -> None:
    """The same runner runs again after an error of the classes, also within a group; anything else ends it."""
    runner = Failing(error)
    async with watched(restart_on(runner, OSError, KeyError)) as process:
        await trio.sleep(5)
        assert (runner.runs, process.exit is None) == ((2, True) if again else (1, False))


async def test_restart_on_lets_a_clean_exit_be() -> None:
    """Only failures are followed by another run."""
    async with watched(restart_on(returns_ready, Exception)) as process:
        assert (await process.wait()).ok


@pytest.mark.parametrize(("delay", "waited"), [({}, 1.0), ({"delay": 7.0}, 7.0)], ids=["default", "given"])
async def test_restart_on_waits(delay: dict[str, float], waited: float) -> None:
    """The next run begins `delay` seconds after the failure, a second if nothing is said."""
    begin = trio.current_time()
    async with grouper.invoke(restart_on(Failing(OSError()), OSError, **delay)) as process:
        assert process.ready_at == begin + waited
