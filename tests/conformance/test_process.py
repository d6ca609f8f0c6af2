"""What a process is (section 1.2 of the contract)."""

from __future__ import annotations

import signal

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import grouper
from grouper import Exit, ExitedBeforeReady, Parallel, Process, Signals, State

from .runners import Stage, ended, watched


@pytest.mark.contract("9")
async def test_09_background_does_not_wait_for_ready() -> None:
    """The block of `background` begins although the runner is not ready."""
    stage = Stage("a", polite=True)
    async with grouper.background(stage["a"]) as process:
        assert process.ready_at is None
        assert process.exit is None


@pytest.mark.contract("10")
async def test_10_invoke_waits_for_ready() -> None:
    """The block of `invoke` begins when the runner is ready, and not before."""
    stage = Stage("a", polite=True)
    entered = trio.Event()

    async def embed() -> None:
        async with grouper.invoke(stage["a"]):
            entered.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(embed)
        await wait_all_tasks_blocked()
        assert not entered.is_set()
        stage["a"].make_ready()
        await wait_all_tasks_blocked()
        assert entered.is_set()


@pytest.mark.contract("10")
@pytest.mark.parametrize("fails", [False, True])
async def test_10_invoke_raises_if_the_runner_ends_unready(fails: bool) -> None:
    """A runner that ends before it is ready does not hang `invoke`: it raises, and the block never begins."""

    async def ends(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        if fails:
            raise ValueError("broken")

    with trio.fail_after(3600), pytest.raises(ValueError if fails else ExitedBeforeReady):
        async with grouper.invoke(ends):
            pytest.fail("the block began")


@pytest.mark.contract("11")
async def test_11_ready_is_told_once_it_is_and_an_exit_before_it_too() -> None:
    """Those who wait for ready go on when the runner is ready; if it ends before, they are told so."""
    stage = Stage("ab")
    told: list[str] = []

    async def wait_for(process: Process) -> None:
        try:
            await process.wait_ready()
            told.append(f"{process.name} is ready")
        except ExitedBeforeReady:
            told.append(f"{process.name} exited")

    async with watched(Parallel(stage.members(role=grouper.Role.OPTIONAL))) as group, trio.open_nursery() as nursery:
        await stage.set_out()
        for process in group.children:
            nursery.start_soon(wait_for, process)
        await stage.news()
        assert told == []
        stage["a"].make_ready()
        await stage.news()
        assert told == ["a is ready"]
        stage["b"].exit()
        await stage.news()
        assert told == ["a is ready", "b exited"]
        stage["a"].exit()


@pytest.mark.contract("12")
async def test_12_any_number_of_waiters_get_the_same_exit() -> None:
    """`wait()` returns one and the same `Exit` to all who call it, before and after the end, and raises to nobody."""
    stage = Stage("a", ready=True)
    exits: list[Exit] = []

    async def wait_for(process: Process) -> None:
        exits.append(await process.wait())

    error = ValueError("broken")
    async with watched(stage["a"]) as process:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait_for, process)
            await wait_all_tasks_blocked()
            stage["a"].exit(error)
        exits += [await process.wait(), await process.wait()]
    assert len(exits) == 5
    assert all(exit is exits[0] for exit in exits)
    assert exits[0].error is error


@pytest.mark.contract("13")
async def test_13_a_signal_reaches_the_runner_without_waiting() -> None:
    """`signal()` is no coroutine: it returns at once, also while the runner reads nothing, and the runner gets it."""
    stage = Stage("a", ready=True)
    async with watched(stage["a"]) as process:
        await stage.set_out()
        process.signal(signal.SIGUSR1)
        assert await stage.news() == ["a SIGUSR1"]
        stage["a"].exit()


@pytest.mark.contract("13")
async def test_13_a_signal_after_the_exit_is_dropped() -> None:
    """A signal to a process that has exited does nothing and is no error."""
    stage = Stage("a", ready=True)
    async with watched(stage["a"]) as process:
        await stage.set_out()
        stage["a"].exit()
        await process.wait()
        await stage.news()
        process.signal(signal.SIGTERM)
        process.signal(signal.SIGHUP)
        assert await stage.news() == []
        assert process.exit is not None
        assert process.exit.ok


@attrs.define(eq=False)
class LateReader:
    """A runner that reads nothing until it may, and then all there is."""

    go: trio.Event = attrs.field(factory=trio.Event)
    heard: list[int] = attrs.field(factory=list[int])

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await self.go.wait()
        with trio.move_on_after(1):
            async for number in signals:
                self.heard.append(number)


@pytest.mark.contract("14")
async def test_14_stop_signals_wait_for_the_reader_without_limit() -> None:
    """However many stop signals are sent before the runner reads, it gets each of them."""
    reader = LateReader()
    async with watched(reader) as process:
        sent = [signal.SIGINT, signal.SIGTERM, signal.SIGTERM] * 2_000
        for number in sent:
            process.signal(number)
        reader.go.set()
        await process.wait()
    assert reader.heard == sent


@pytest.mark.contract("14")
async def test_14_a_pending_pass_through_signal_is_not_queued_twice() -> None:
    """A pass-through signal that the runner has not read yet is there once, in the place where it was first sent."""
    reader = LateReader()
    async with watched(reader) as process:
        for number in [signal.SIGHUP, signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM, signal.SIGHUP]:
            process.signal(number)
        reader.go.set()
        await process.wait()
    assert reader.heard == [signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM]


@pytest.mark.contract("15")
async def test_15_everything_about_a_process_works_after_its_end() -> None:
    """All that can be asked of a process, or told to it, is safe after it has exited."""
    stage = Stage("a", polite=True)
    async with watched(Parallel(stage.members())) as group:
        await stage.set_out()
        stage["a"].make_ready("value")
        await stage.news()
        (process,) = group.children
        group.signal(signal.SIGTERM)
        await group.wait()
        process.signal(signal.SIGTERM)
        process.signal(signal.SIGKILL)
        process.kill("late")
        assert await process.wait_ready() == "value"
        assert (await process.wait()).ok
        assert (process.name, process.path, process.value, process.state) == ("a", "a", "value", State.EXITED)
        assert group.children == (process,)
        assert process.started_at is not None
        assert process.ready_at is not None
        async with process.events() as stream:
            assert [event async for event in stream] == []


@pytest.mark.contract("16")
async def test_16_what_a_runner_raises_becomes_its_exit() -> None:
    """An exception that nobody in the runner expected is its exit's error, and the program goes on."""

    async def faulty(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await signals.wait()
        raise IndexError("a bug")

    async with watched(grouper.Member("a", faulty)) as process:
        await process.wait_ready()
        process.signal(signal.SIGTERM)
        exit = await ended(process)
        assert isinstance(exit.error, IndexError)


@pytest.mark.contract("16")
async def test_16_what_is_no_exception_passes_through_after_an_ordered_stop() -> None:
    """A SystemExit of a member comes out as itself, once the other members were stopped and have ended."""
    stage = Stage("ab", ready=True, polite=True)

    async def program() -> None:
        async with grouper.invoke(grouper.Ordered(stage.members())):
            await stage.set_out()
            stage["b"].exit(SystemExit(7))
            await trio.sleep(1)

    with pytest.raises(SystemExit) as caught:
        await program()
    assert caught.value.code == 7
    assert stage.log == ["b exits", "a SIGTERM", "a exits"]
