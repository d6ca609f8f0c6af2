"""`Member(around=)`: a context manager that is held from a member's start to its exit."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import grouper
from grouper import ErrorTrace, Graph, Member, Ordered, Parallel, ReadyTimeout, Restarter, Role, Signals, State, StopTimeout
from grouper.coordination import MemoryStore
from grouper.member import GRACE, grace_of
from grouper.runner import RunnerLike

from .groups.members import Cast, Puppet, fails, returns, service, trace_of, watched


@attrs.define(eq=False)
class Around:
    """Tells a log when it is entered and left; each takes so many seconds, or fails."""

    log: list[str] = attrs.field(factory=list[str])
    name: str = "around"
    entering: float = 0.0
    leaving: float = 0.0
    fails_entering: Exception | None = None
    fails_leaving: Exception | None = None
    swallows: bool = False
    given: BaseException | None = None

    async def __aenter__(self) -> None:
        self.log.append(f"({self.name}")
        if self.entering:
            await trio.sleep(self.entering)
        if self.fails_entering is not None:
            raise self.fails_entering
        self.log.append(f"[{self.name}")

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> bool:
        self.log.append(f"{self.name}]")
        self.given = error
        with trio.CancelScope(shield=True):
            await trio.sleep(self.leaving)
        if self.fails_leaving is not None:
            raise self.fails_leaving
        self.log.append(f"{self.name})")
        return self.swallows


HELD = ["(around", "[around", "around]", "around)"]


async def run_to_end(around: Any, runner: RunnerLike, **policy: Any) -> grouper.Exit:
    """Run a member that ends by itself, and return how."""
    async with watched(Member("a", runner, around=around, **policy)) as process:
        return await process.wait()


# Held


async def test_it_is_entered_before_the_runner_and_left_after_it() -> None:
    """In the member's own task."""
    around, tasks = Around(), set[Any]()
    puppet = Puppet(log=around.log)

    @contextlib.asynccontextmanager
    async def both() -> AsyncGenerator[None]:
        async with around:
            tasks.add(trio.lowlevel.current_task())
            yield

    async def runner(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        tasks.add(trio.lowlevel.current_task())
        await puppet.run(signals, task_status=task_status)

    async with grouper.invoke(Member("a", runner, around=both)):
        pass
    assert around.log == ["(around", "[around", "+a", "SIGTERM a", "-a", "around]", "around)"]
    assert len(tasks) == 1


async def test_member_of_a_wait_group_counts_as_long_as_it_runs() -> None:
    """`Member("w1", worker, around=group.member("w1"))`, again if it runs again."""
    group = MemoryStore().waitgroup("batch")
    await group.create()
    member = Member("w1", service, around=group.member("w1"))
    for _ in range(2):
        async with grouper.invoke(member):
            assert [entry.id for entry in (await group.status()).members] == ["w1"]
        status = await group.status()
        assert (status.counter, status.lost) == (0, 0)


async def test_lost_member_of_a_wait_group_has_failed() -> None:
    """The loss cancels its runner."""
    store = MemoryStore()
    group = store.waitgroup("batch")
    await group.create()
    async with watched(Ordered([Member("w1", service, around=group.member("w1"))])) as process:
        store.die()
        trace = await trace_of(process)
    assert "MemberLost" in str([*trace.exceptions])


async def test_it_is_entered_once_for_all_runs_of_a_runner_that_is_restarted() -> None:
    """Held from the first start to the last exit."""
    around = Around()
    first, second = Puppet("1", around.log), Puppet("2", around.log)
    answers: list[RunnerLike | None] = [second, None]

    async def load(runner: RunnerLike, error: Exception | None) -> RunnerLike | None:
        return answers.pop(0)

    async with watched(Member("a", Restarter(first, load), around=around)) as process:
        first.fail(OSError("gone"))
        await wait_all_tasks_blocked()
        second.end.set()
        assert (await process.wait()).ok
    assert around.log == ["(around", "[around", "+1", "-1", "+2", "-2", "around]", "around)"]


async def test_function_is_called_for_each_run() -> None:
    """Its managers need be entered once only; a class is such a function."""
    log: list[str] = []

    class Once(Around):
        def __init__(self) -> None:
            super().__init__(log)

    member = Member("a", service, around=Once)
    for _ in range(2):
        async with grouper.invoke(member):
            pass
    assert log == HELD * 2


async def test_its_exit_is_a_part_of_the_members_life() -> None:
    """Those that the member is after are stopped when it has been left."""
    around = Around(leaving=5.0)
    cast = Cast("ab")
    cast["a"].log = cast["b"].log = around.log
    async with grouper.invoke(Ordered([("a", cast["a"]), Member("b", cast["b"], around=around)])):
        pass
    assert around.log == ["+a", "(around", "[around", "+b", "SIGTERM b", "-b", "around]", "around)", "SIGTERM a", "-a"]
    assert trio.current_time() == 5


async def test_the_check_is_asked_inside_of_it() -> None:
    """What it opens is there for `ready_when`."""
    around = Around()

    async def check() -> None:
        around.log.append("asked")

    async with grouper.invoke(Member("a", service, around=around, ready_when=check)):
        assert around.log == ["(around", "[around", "asked"]
    assert around.log == ["(around", "[around", "asked", "around]", "around)"]


async def test_job_is_ready_when_it_has_been_left() -> None:
    """Those after it start then."""
    around = Around(leaving=5.0)
    cast = Cast("b")
    cast["b"].log = around.log
    async with grouper.invoke(Ordered([Member("a", returns, role=Role.JOB, around=around), ("b", cast["b"])])):
        assert around.log == [*HELD, "+b"]


async def test_group_can_be_inside_of_it() -> None:
    """It gets the signals, keeps its place in the tree, and its own word counts for grace and role."""
    around = Around()
    cast = Cast("xy")
    for puppet in cast.puppets.values():
        puppet.log = around.log
    group = Ordered(cast.pairs())
    member = Member("group", group, around=around)
    assert grace_of(member) == grace_of(Member("group", group))
    assert grace_of(Member("a", service, around=around)) == GRACE
    async with grouper.invoke(Parallel([member])) as process:
        assert [child.path for child in process.children[0].children] == ["group/x", "group/y"]
    assert around.log == ["(around", "[around", "+x", "+y", "SIGTERM y", "-y", "SIGTERM x", "-x", "around]", "around)"]
    jobs = Member("jobs", Ordered([Member("job", returns, role=Role.JOB)]), around=around)
    assert jobs.role is Role.JOB


async def test_members_can_be_inside_one_another() -> None:
    """Each with its own."""
    log: list[str] = []
    inner = Member("a", service, around=Around(log, "inner"))
    async with grouper.invoke(Member("b", inner, around=Around(log, "outer"))):
        pass
    assert log == ["(outer", "[outer", "(inner", "[inner", "inner]", "inner)", "outer]", "outer)"]


# Failures


async def test_it_is_given_the_runners_exception() -> None:
    """Which is the member's."""
    around = Around()
    exit = await run_to_end(around, fails)
    assert isinstance(exit.error, OSError)
    assert around.given is exit.error


async def test_it_makes_a_clean_exit_of_what_it_swallows() -> None:
    """By returning true."""
    exit = await run_to_end(Around(swallows=True), fails, role=Role.JOB)
    assert exit.ok


async def test_error_of_entering_is_the_members() -> None:
    """The runner is not called."""
    around = Around(fails_entering=LookupError("no such group"))
    puppet = Puppet(log=around.log)
    with pytest.raises(ErrorTrace) as caught:
        async with grouper.invoke(Ordered([Member("a", puppet, around=around)])):
            raise AssertionError("not ready")
    assert [str(error) for error in caught.value.exceptions] == ["no such group"]
    assert around.log == ["(around"]


async def test_error_of_leaving_is_the_members() -> None:
    """Also where it was told to stop."""
    with pytest.raises(ErrorTrace, match="1 of 1") as caught:
        async with grouper.invoke(Ordered([Member("a", service, around=Around(fails_leaving=OSError("full")))])):
            pass
    assert [str(error) for error in caught.value.exceptions] == ["full"]


async def test_kill_leaves_it() -> None:
    """It is given the cancellation."""
    around = Around()
    async with watched(Member("a", service, around=around)) as process:
        process.kill()
        assert (await process.wait()).killed
    assert around.log == HELD
    assert isinstance(around.given, trio.Cancelled)


async def test_time_to_be_ready_includes_entering() -> None:
    """`ready_within` bounds both."""
    with pytest.raises(ReadyTimeout):
        async with grouper.invoke(Member("a", service, around=Around(entering=10), ready_within=5)):
            pass


async def test_grace_includes_leaving() -> None:
    """What has not left it by then is killed."""

    @contextlib.asynccontextmanager
    async def slow_to_leave() -> AsyncGenerator[None]:
        yield
        await trio.sleep(60)

    with pytest.raises(StopTimeout):
        async with grouper.invoke(Member("a", service, around=slow_to_leave, grace=5)):
            pass
    assert trio.current_time() == 5


# Told to stop


async def test_stop_signal_cancels_the_entering() -> None:
    """The runner is not called, which is a clean exit."""
    around = Around(entering=60)
    puppet = Puppet(log=around.log)
    async with watched(Member("a", puppet, around=around)) as process:
        process.signal(15)
        assert (await process.wait()).ok
    assert around.log == ["(around"]
    assert trio.current_time() == 0


async def test_other_signals_do_not_and_wait_for_the_runner() -> None:
    """In order."""
    around = Around(entering=1)
    puppet = Puppet(log=around.log)
    async with watched(Member("a", puppet, around=around)) as process:
        process.signal(10)
        process.signal(1)
        await trio.sleep(2)
        assert around.log == ["(around", "[around", "+a", "SIGUSR1 a", "SIGHUP a"]


async def test_stop_signal_that_the_entering_did_not_heed_leaves_it_at_once() -> None:
    """The runner is not called, and what was entered is left."""
    around = Around()
    puppet = Puppet(log=around.log)
    signals = Signals()

    @contextlib.asynccontextmanager
    async def told_meanwhile() -> AsyncGenerator[None]:
        async with around:
            signals.send(15)
            yield

    await Member("a", puppet, around=told_meanwhile).run(signals, task_status=trio.TASK_STATUS_IGNORED)
    assert around.log == HELD


async def test_member_that_was_told_to_stop_before_it_began_enters_nothing() -> None:
    """Its runner is not called either."""
    around = Around()
    signals = Signals()
    signals.send(15)
    await Member("a", service, around=around).run(signals, task_status=trio.TASK_STATUS_IGNORED)
    assert around.log == []


async def test_stop_signal_does_not_cancel_the_runner_nor_the_leaving() -> None:
    """Nor does a second one: they are the runner's to read."""
    around = Around(leaving=5)
    told: list[int] = []

    async def slow(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        task_status.started()
        async for number in signals:
            told.append(number)
            await trio.sleep(1)
            if len(told) == 2:
                return

    @contextlib.asynccontextmanager
    async def both() -> AsyncGenerator[None]:
        async with around:
            yield
            await trio.sleep(1)
            around.log.append("not cancelled")

    async with watched(Member("a", slow, around=both)) as process:
        process.signal(15)
        await trio.sleep(0.5)
        process.signal(2)
        await trio.sleep(2)
        process.signal(15)
        assert (await process.wait()).ok
    assert told == [15, 2]
    assert around.log == ["(around", "[around", "not cancelled", "around]", "around)"]


async def test_manager_with_a_nursery_is_entered_and_left_in_order() -> None:
    """Its scopes are inside of what cancels the entering."""

    @contextlib.asynccontextmanager
    async def nursery() -> AsyncGenerator[None]:
        async with trio.open_nursery() as opened:
            opened.start_soon(trio.sleep_forever)
            yield
            opened.cancel_scope.cancel()

    async with grouper.invoke(Graph([Member("a", service, around=nursery)])) as process:
        assert process.state is State.READY
    assert process.exit is not None
    assert process.exit.ok


# Bad input


@contextlib.contextmanager
def not_async() -> Any:
    yield


@pytest.mark.parametrize("given", [True, "w1", contextlib.ExitStack()])
def test_what_is_no_manager_is_refused_by_name(given: Any) -> None:
    """When the member is made."""
    with pytest.raises(TypeError, match=r"member 'a': around=.* is neither an async context manager, .* nor a function"):
        Member("a", service, around=given)


async def coroutine() -> None:
    raise AssertionError("not called")


@pytest.mark.parametrize("around", [coroutine, not_async, lambda: None])
async def test_function_that_returns_no_manager_is_an_error_of_the_member(around: Any) -> None:
    """The runner is not called; what it returned is in the text."""
    with pytest.raises(ErrorTrace) as caught:
        async with grouper.invoke(Ordered([Member("a", service, around=around)])):
            raise AssertionError("not ready")
    (error,) = caught.value.exceptions
    assert isinstance(error, TypeError)
    assert str(error).startswith("member 'a': its `around` returned ")
    assert str(error).endswith(
        "which is no async context manager: decorate an `async def` that yields once with contextlib.asynccontextmanager"
    )
