"""check_runner: runners that keep the contract pass, and each way to break it is named."""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
import threading
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio

import grouper
from grouper.runner import RunnerLike
from grouper.testing import ContractBroken, FakeRunner, check_runner

Status = trio.TaskStatus[Any]


async def violations(make_runner: Callable[[], RunnerLike]) -> dict[str, str]:
    """The first violation of each point."""
    with pytest.raises(ContractBroken) as caught:
        await check_runner(make_runner, setup_within=2, grace=1)
    return {each.point: each.text for each in reversed(caught.value.violations)}


async def busy(rounds: int) -> None:
    for _ in range(rounds):
        await trio.lowlevel.checkpoint()


# Good ones


async def serve(signals: grouper.Signals, *, task_status: Status) -> None:
    await trio.sleep(1)
    task_status.started()
    async for number in signals:
        if number in (signal.SIGINT, signal.SIGTERM):
            return


async def work(signals: grouper.Signals, *, task_status: Status) -> None:
    with signals.cancelling():
        task_status.started()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)


async def retire(signals: grouper.Signals, *, task_status: Status) -> None:
    task_status.started()


async def shields_for_a_while(signals: grouper.Signals, *, task_status: Status) -> None:
    task_status.started()
    try:
        await signals.wait()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(0.5)


@pytest.mark.parametrize(
    "make_runner",
    [
        lambda: serve,
        lambda: work,
        lambda: retire,
        lambda: shields_for_a_while,
        lambda: FakeRunner(ready_at_once=True, stops=True, cleanup=0.5),
        lambda: grouper.Ordered([("db", serve), ("api", work)]),
        lambda: grouper.Graph([("a", work), grouper.Member("b", serve, after="a")]),
        lambda: grouper.Ordered([]),
        grouper.Dynamic,
        lambda: grouper.Startable(trio.sleep_forever),
        lambda: grouper.restart_on(work, OSError),
    ],
)
async def test_good_runners_pass(make_runner: Callable[[], RunnerLike]) -> None:
    """What keeps the contract raises nothing."""
    await check_runner(make_runner, setup_within=3, grace=2)


@pytest.mark.real_time
async def test_a_server_passes_by_the_real_clock() -> None:
    """What has a port gives it back in time, whatever its end."""
    with contextlib.closing(trio.socket.socket()) as probe:
        await probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]

    async def handle(stream: trio.SocketStream) -> None:
        raise NotImplementedError

    await check_runner(lambda: grouper.Startable(functools.partial(trio.serve_tcp, handle, port, host="127.0.0.1")))


@pytest.mark.real_time
async def test_by_the_real_clock_a_runner_may_be_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the clock runs, only the seconds count, and not how often tasks are resumed."""
    monkeypatch.setattr("grouper.testing.trial.BUSY", 10)

    async def computes(signals: grouper.Signals, *, task_status: Status) -> None:
        await busy(50)
        task_status.started()
        await signals.wait()

    await check_runner(lambda: computes)


async def test_a_check_takes_what_its_runners_take() -> None:
    """By the mock clock a check has its time: the runners' own, and none for waiting that was not needed."""
    before = trio.current_time()
    await check_runner(lambda: FakeRunner(ready_at_once=True, stops=True), setup_within=1000, grace=1000)
    assert trio.current_time() == before


# Broken ones


async def returns_before_ready(signals: grouper.Signals, *, task_status: Status) -> None:
    await trio.lowlevel.checkpoint()


async def raises_before_ready(signals: grouper.Signals, *, task_status: Status) -> None:
    raise OSError("no config")


async def never_ready(signals: grouper.Signals, *, task_status: Status) -> None:
    await signals.wait()


async def never_ready_and_busy(signals: grouper.Signals, *, task_status: Status) -> None:
    while True:
        await trio.lowlevel.checkpoint()


async def fails_by_itself(signals: grouper.Signals, *, task_status: Status) -> None:
    task_status.started()
    await busy(5)
    raise OSError("no more")


async def ready_twice(signals: grouper.Signals, *, task_status: Status) -> None:
    task_status.started()
    task_status.started()


async def ready_twice_when_stopping(signals: grouper.Signals, *, task_status: Status) -> None:
    task_status.started()
    await signals.wait()
    task_status.started()


async def deaf(signals: grouper.Signals, *, task_status: Status) -> None:
    task_status.started()
    await trio.sleep_forever()


async def deaf_to_interrupts(signals: grouper.Signals, *, task_status: Status) -> None:
    task_status.started()
    async for number in signals:
        if number == signal.SIGTERM:
            return


async def fails_when_stopped(signals: grouper.Signals, *, task_status: Status) -> None:
    task_status.started()
    await signals.wait()
    raise OSError("cannot save")


async def misses_what_is_pending(signals: grouper.Signals, *, task_status: Status) -> None:
    with trio.move_on_after(0.1):
        async for _ in signals:
            pass
    task_status.started()
    await signals.wait()


async def fails_on_what_is_pending(signals: grouper.Signals, *, task_status: Status) -> None:
    if signals.received is not None:
        raise OSError("told to stop before it began")
    task_status.started()
    await signals.wait()


async def swallows_its_kill(signals: grouper.Signals, *, task_status: Status) -> None:
    task_status.started()
    while signals.received is None:
        with contextlib.suppress(trio.Cancelled):
            await signals.wait()


async def swallows_everything(signals: grouper.Signals, *, task_status: Status) -> None:
    task_status.started()
    while signals.received is None:
        with contextlib.suppress(BaseException):
            await signals.wait()


async def has_a_child_that_swallows_its_kill(signals: grouper.Signals, *, task_status: Status) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: swallows_its_kill(signals, task_status=task_status))


async def hides_under_a_shield(signals: grouper.Signals, *, task_status: Status) -> None:
    task_status.started()
    with trio.CancelScope(shield=True):
        await signals.wait()


async def fails_when_killed_early(signals: grouper.Signals, *, task_status: Status) -> None:
    try:
        await trio.sleep(1)
    except trio.Cancelled:
        raise OSError("cannot clean up") from None
    task_status.started()
    await signals.wait()


async def fails_when_killed_late(signals: grouper.Signals, *, task_status: Status) -> None:
    task_status.started()
    try:
        await signals.wait()
    except trio.Cancelled:
        raise OSError("cannot clean up") from None


async def leaves_a_task(signals: grouper.Signals, *, task_status: Status) -> None:
    task_status.started()
    trio.lowlevel.spawn_system_task(trio.sleep, 100, name="straggler")
    await signals.wait()


@pytest.mark.parametrize(
    ("runner", "expected"),
    [
        (returns_before_ready, {"setup": "returned before it was ready"}),
        (raises_before_ready, {"setup": "raised OSError('no config') before it was ready"}),
        (never_ready, {"setup": "was not ready within 2 s; it sat at test_check.py:"}),
        (never_ready_and_busy, {"setup": "was not ready within 2 s; it sat at test_check.py:"}),
        (fails_by_itself, {"setup": "raised OSError('no more') when it was ready, although nobody had stopped it"}),
        (ready_twice, {"once": "called `task_status.started()` 2 times"}),
        (ready_twice_when_stopping, {"once": "called `task_status.started()` 2 times"}),
        (deaf, {"stop": "still ran 1 s after SIGTERM; it sat at test_check.py:"}),
        (deaf_to_interrupts, {"stop": "still ran 1 s after SIGINT"}),
        (fails_when_stopped, {"stop": "raised OSError('cannot save') after SIGTERM", "pending": "raised OSError('cannot save')"}),
        (misses_what_is_pending, {"pending": "still ran 3 s after a SIGTERM sent before it ran"}),
        (fails_on_what_is_pending, {"pending": "raised OSError('told to stop before it began') after a SIGTERM sent before"}),
        (swallows_its_kill, {"kill": "still ran 1 s after it was killed before its first checkpoint; it sat at"}),
        (swallows_everything, {"kill": "still ran 1 s after it was killed before its first checkpoint"}),
        (has_a_child_that_swallows_its_kill, {"kill": "still ran 1 s after it was killed before its first checkpoint"}),
        (hides_under_a_shield, {"kill": "still ran 1 s after it was killed before its first checkpoint"}),
        (fails_when_killed_early, {"kill": "raised OSError('cannot clean up') after it was killed before its first"}),
        (fails_when_killed_late, {"kill": "raised OSError('cannot clean up') after it was killed before its first"}),
        (leaves_a_task, {"tasks": "left tasks behind, which still ran 1 s after its end: straggler"}),
    ],
)
async def test_each_violation_is_named(runner: RunnerLike, expected: dict[str, str]) -> None:
    """A runner that breaks a point of the contract is told that point, and no other."""
    found = await violations(lambda: runner)
    assert found.keys() == expected.keys()
    for point, text in expected.items():
        assert found[point].startswith(text)


@attrs.define(eq=False)
class Port:
    """Something that one can hold at a time; a runner that gives it back, or not, when it ends so."""

    kept_after: str
    taken: bool = False

    async def run(self, signals: grouper.Signals, /, *, task_status: Status) -> None:
        if self.taken:
            raise OSError("address in use")
        self.taken = True
        pending = signals.received is not None
        end = "killed"
        try:
            await trio.lowlevel.checkpoint()
            end = "killed early"
            await trio.sleep(1)
            task_status.started()
            end = "killed late"
            await signals.wait()
            end = "pending" if pending else "stopped"
        finally:
            self.taken = end == self.kept_after


@pytest.mark.parametrize(
    ("kept_after", "when"),
    [
        ("stopped", "when run again after a stop"),
        ("pending", "as a fresh one after one that was stopped before its first step"),
        ("killed", "as a fresh one after one that was killed before its first checkpoint"),
        ("killed early", "as a fresh one after one that was killed while it started"),
        ("killed late", "as a fresh one after one that was killed when it was ready"),
    ],
)
async def test_what_is_not_given_back_is_named_with_the_end_that_kept_it(kept_after: str, when: str) -> None:
    """Where a later run cannot be set up, the violation tells after which end."""
    port = Port(kept_after)
    assert await violations(lambda: port) == {"again": f"{when}, raised OSError('address in use') before it was ready"}


async def test_a_runner_that_is_not_ready_again_is_named() -> None:
    """A second run of the same runner has the same time to be ready."""
    found = await violations(FirstTimeOnly)
    assert found["again"].startswith("when run again after a stop, was not ready within 2 s")


@attrs.define(eq=False)
class FirstTimeOnly:
    ran: bool = False

    async def run(self, signals: grouper.Signals, /, *, task_status: Status) -> None:
        if not self.ran:
            task_status.started()
        self.ran = True
        await signals.wait()


async def test_all_violations_are_told_at_once() -> None:
    """One error has them all, each with its fix, and the runner's first exception is its cause."""
    error = OSError("cannot save")

    async def runner(signals: grouper.Signals, *, task_status: Status) -> None:
        task_status.started()
        await signals.wait()
        trio.lowlevel.spawn_system_task(trio.sleep_forever)
        raise error

    with pytest.raises(AssertionError) as caught:
        await check_runner(lambda: runner, setup_within=2, grace=1)
    assert isinstance(caught.value, ContractBroken)
    assert {each.point for each in caught.value.violations} == {"stop", "tasks", "pending"}
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{runner!r} breaks the contract of runners:"
    assert lines[1].startswith("- stop: it raised OSError('cannot save') after SIGTERM")
    assert lines[2].startswith("  to fix: read the signals")
    assert len(lines) == 1 + 2 * len(caught.value.violations)
    assert caught.value.__cause__ is error


async def test_started_raises_the_second_time() -> None:
    """A second `started()` is the runner's error, as in a group."""

    async def runner(signals: grouper.Signals, *, task_status: Status) -> None:
        task_status.started()
        with pytest.raises(RuntimeError, match="a second time"):
            task_status.started()
        await signals.wait()

    assert (await violations(lambda: runner)).keys() == {"once"}


async def test_what_is_known_is_not_waited_for_again() -> None:
    """A runner that has ignored a stop signal is not sent it again."""
    fakes: list[FakeRunner] = []

    def make() -> FakeRunner:
        fakes.append(FakeRunner(ready_at_once=True))
        return fakes[-1]

    assert (await violations(make)).keys() == {"stop"}
    assert [number for fake in fakes for run in fake.runs for number in run.signals] == [signal.SIGTERM, signal.SIGINT]


async def test_a_check_ends_with_what_had_to_be_ended_by_force() -> None:
    """After a run that ignored its kill there is no other."""
    made: list[RunnerLike] = []

    def make() -> RunnerLike:
        made.append(hides_under_a_shield)
        return hides_under_a_shield

    with pytest.raises(ContractBroken) as caught:
        await check_runner(make, grace=1)
    assert [each.point for each in caught.value.violations] == ["kill"]
    assert len(made) == 4  # two were stopped, one of them twice, one had a signal pending, one was killed


async def test_a_task_that_ends_soon_after_the_run_is_not_left_behind() -> None:
    """What the run spawned elsewhere has the grace to end."""

    async def runner(signals: grouper.Signals, *, task_status: Status) -> None:
        task_status.started()
        trio.lowlevel.spawn_system_task(trio.sleep, 0.5)
        await signals.wait()

    await check_runner(lambda: runner, grace=1)


async def test_tasks_of_others_are_not_the_runners() -> None:
    """What the test itself starts meanwhile is not left behind by the runner."""

    async def others() -> None:
        while True:
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep(0.1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        await check_runner(lambda: serve, setup_within=3, grace=1)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("stuck", [swallows_its_kill, hides_under_a_shield])
async def test_a_member_that_ignores_its_kill_is_ended_too(stuck: RunnerLike, caplog: pytest.LogCaptureFixture) -> None:
    """Force reaches through groups, and the check ends."""
    caplog.set_level(logging.CRITICAL, "grouper")
    found = await violations(lambda: grouper.Ordered([("db", work), ("stuck", stuck)]))
    assert found.keys() == {"kill"}


@pytest.mark.real_time
async def test_what_cannot_be_ended_is_logged_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that nobody can end is named in the log, and the check goes on when it has ended."""
    release, logged = threading.Event(), trio.Event()
    texts: list[str] = []

    def error(text: str, *given: object) -> None:
        texts.append(text % given)
        logged.set()

    monkeypatch.setattr(logging.getLogger("grouper"), "error", error)

    async def in_a_thread(signals: grouper.Signals, *, task_status: Status) -> None:
        task_status.started()
        await trio.to_thread.run_sync(release.wait)

    async def let_go_when_logged() -> None:
        await logged.wait()
        release.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(let_go_when_logged)
        with pytest.raises(ContractBroken, match=r"still ran 0\.02 s after it was killed, as it had not stopped"):
            await check_runner(lambda: in_a_thread, grace=0.02)
    assert "cannot be ended; it sits at test_check.py:" in texts[0]


async def test_a_cancellation_kills_the_runner_of_the_moment() -> None:
    """A check that is cancelled ends with its runner."""
    fake = FakeRunner()
    with trio.move_on_after(1) as scope:
        await check_runner(lambda: fake)
    assert scope.cancelled_caught
    assert fake.runs[0].killed


async def test_what_is_no_exception_is_not_kept() -> None:
    """A SystemExit leaves the check, as it leaves a group."""

    async def leaves(signals: grouper.Signals, *, task_status: Status) -> None:
        raise SystemExit(3)

    with pytest.RaisesGroup(SystemExit):
        await check_runner(lambda: leaves)


@pytest.mark.parametrize("given", [serve, FakeRunner(), grouper.Ordered([])])
async def test_a_runner_is_no_factory(given: Any) -> None:
    """Who gives the runner itself is told to give a function."""
    with pytest.raises(TypeError, match="check_runner takes a function that makes a fresh runner"):
        await check_runner(given)


async def test_what_is_made_has_to_be_a_runner() -> None:
    """A function that gives something else is told what a runner is."""
    broken: Any = dict  # built in C, without a signature
    with pytest.raises(TypeError, match=r"check_runner: what was made: \{\} is not a runner"):
        await check_runner(broken)


@pytest.mark.parametrize("name", ["setup_within", "grace"])
async def test_seconds_are_checked(name: str) -> None:
    """Limits are numbers of seconds."""
    limits: Any = {name: -1}
    with pytest.raises(ValueError, match=f"check_runner: {name}=-1"):
        await check_runner(lambda: serve, **limits)
