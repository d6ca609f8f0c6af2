"""The worst moments, each a test."""

from __future__ import annotations

import signal
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

import grouper
from grouper import Dynamic, ErrorTrace, GroupClosed, Member, Ordered, Parallel, Signals, StopTimeout

from .scenario import Account


async def idle(signals: Signals, *, task_status: trio.TaskStatus[None]) -> None:
    task_status.started()
    async for number in signals:
        if number != signal.SIGHUP:
            return


def nested(depth: int, innermost: Any) -> Ordered:
    """A group in a group in a group."""
    tree = Ordered([("m", innermost)])
    for _ in range(depth - 1):
        tree = Ordered([("m", tree)])
    return tree


def test_a_second_ctrl_c_while_a_member_stops_under_a_shield_is_taken_and_nothing_is_left() -> None:
    """Two KeyboardInterrupts in the main task, the second while a member cleans up: both come out, after the clean-up."""
    account = Account()

    async def main() -> None:
        group = Ordered([("a", account.service("a", slow=5)), ("b", account.service("b", slow=5))])
        async with trio.open_nursery() as nursery:

            async def interrupt() -> None:
                await trio.sleep(1)
                signal.raise_signal(signal.SIGINT)
                await trio.sleep(1)
                signal.raise_signal(signal.SIGINT)

            nursery.start_soon(interrupt)
            await group.run(Signals(), task_status=trio.TASK_STATUS_IGNORED)

    with pytest.raises(BaseExceptionGroup) as caught:
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    interrupts, rest = caught.value.split(KeyboardInterrupt)
    assert rest is None
    assert interrupts is not None
    assert account.ended == ["b", "a"]


def test_a_keyboard_interrupt_with_no_receiver_kills_the_tree_in_stop_order() -> None:
    """Ctrl-C in the block beside `invoke`, with nobody who takes signals: it comes out bare, after an ordered stop."""
    account = Account()

    async def main() -> None:
        async with grouper.invoke(Ordered([("a", account.service("a", slow=1)), ("b", account.service("b", slow=1))])):
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert account.ended == ["b", "a"]


async def test_a_cancellation_during_an_ordered_start_kills_those_that_were_started_in_reverse() -> None:
    """The third is starting: it is killed first, and the fourth is never started."""
    account = Account()

    async def slow(signals: Signals, *, task_status: trio.TaskStatus[None]) -> None:
        account.started.append("c")
        try:
            await trio.sleep_forever()
        finally:
            account.ended.append("c")

    group = Ordered([("a", account.service("a")), ("b", account.service("b", slow=2)), ("c", slow), ("d", account.service("d"))])
    with trio.move_on_after(5) as scope:
        async with grouper.invoke(group):
            pytest.fail("the group was never ready")
    assert scope.cancelled_caught
    assert account.started == ["a", "b", "c"]
    assert account.ended == ["c", "b", "a"]


async def test_a_cancellation_during_an_ordered_stop_goes_on_in_the_same_order() -> None:
    """The last member ignores its signal and is killed by the cancellation; those before it are killed one by one."""
    account = Account()
    members = [
        Member("a", account.service("a", slow=1)),
        Member("b", account.service("b", slow=1)),
        Member("c", account.service("c", deaf=True, slow=1)),
    ]
    signals = Signals()
    with trio.move_on_after(5) as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(Ordered(members).run, signals)
            signals.send(signal.SIGTERM)
    assert scope.cancelled_caught
    assert account.ended == ["c", "b", "a"]
    assert trio.current_time() == pytest.approx(8)


async def test_a_tree_500_deep_starts_stops_and_tells_its_whole_life() -> None:
    """Depth costs no recursion: start, events with their paths, an ordered stop."""
    account = Account()
    async with grouper.invoke(nested(500, account.service("leaf"))) as process:
        leaf = process
        for _ in range(500):
            (leaf,) = leaf.children
        assert leaf.path == "/".join(["m"] * 500)
        assert leaf.children == ()
    assert account.ended == ["leaf"]


async def test_a_tree_500_deep_prints_a_trace_that_is_one_path() -> None:
    """The chain of groups with one failure each is collapsed, and the text names the cause."""

    async def fails(signals: Signals, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep(1)
        raise ValueError("deep down")

    with pytest.raises(ErrorTrace) as caught:
        async with grouper.invoke(nested(500, fails)):
            await trio.sleep_forever()
    path = "/".join(["m"] * 500)
    assert str(caught.value) == f"1 of 1 members failed:\n  {path}: ValueError: deep down  <- first"
    assert caught.group_contains(ValueError, match="deep down")


async def test_a_tree_500_deep_is_cancelled_from_the_leaf_to_the_root() -> None:
    """A cancellation reaches each level in turn, and no level leaves before the one inside."""
    account = Account()
    with trio.move_on_after(5) as scope:
        async with grouper.invoke(nested(500, account.service("leaf", slow=1))):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert account.ended == ["leaf"]


async def test_the_same_signals_serve_one_group_after_another() -> None:
    """What one group did not act on is pending for the next, and a stop that was received stays received."""
    signals = Signals()
    seen: list[int] = []

    async def listening(own: Signals, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        seen.append(await anext(own))
        await trio.sleep(1)  # exit beats ready: else the group might not see that it was ready

    for number in (signal.SIGHUP, signal.SIGUSR1):
        signals.send(number)
        await Parallel([("m", listening)]).run(signals, task_status=trio.TASK_STATUS_IGNORED)
    assert seen == [signal.SIGHUP, signal.SIGUSR1]
    signals.send(signal.SIGTERM)
    await Parallel([("m", listening)]).run(signals, task_status=trio.TASK_STATUS_IGNORED)
    await Parallel([("m", listening)]).run(signals, task_status=trio.TASK_STATUS_IGNORED)
    assert seen == [signal.SIGHUP, signal.SIGUSR1], "nobody is started once a stop signal was received"


async def test_an_insert_that_races_with_close_is_decided_and_never_hangs() -> None:
    """10,000 rounds: each insert either started its member, which the group then waited for, or raised GroupClosed."""
    outcomes = {"started": 0, "closed": 0}
    ended = 0

    async def member(signals: Signals, *, task_status: trio.TaskStatus[None]) -> None:
        nonlocal ended
        await signals.wait()
        ended += 1

    async def insert(client: grouper.Client, name: str) -> None:
        try:
            await client.insert((name, member))
            outcomes["started"] += 1
        except GroupClosed:
            outcomes["closed"] += 1

    group = Dynamic(1)
    client = group.client()
    for number in range(10_000):
        signals = Signals()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(group.run, signals, task_status=trio.TASK_STATUS_IGNORED))
            nursery.start_soon(insert, client, "a")
            nursery.start_soon(insert, client, "b")
            if number % 2:
                await trio.lowlevel.checkpoint()
            if number % 3:
                signals.send(signal.SIGTERM)
            else:
                client.close()
                signals.send(signal.SIGTERM)
    assert outcomes["started"] + outcomes["closed"] == 20_000
    assert outcomes["started"] > 1000 < outcomes["closed"]
    assert ended == outcomes["started"]


async def test_a_group_never_waits_for_a_listener_that_does_not_read() -> None:
    """While 100,000 events pass unread the group goes on, and the listener learns how many it missed."""

    async def brief(signals: Signals, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()

    group = Dynamic(64)
    client = group.client()
    async with grouper.invoke(group) as process, process.events() as stream:
        for number in range(33_334):
            await client.insert((f"m{number}", brief))
        client.close()
        await process.wait()
        published = 3 * 33_334 + 2  # the start and the entrance of the group itself, which are in the ring too
        missed = stream.missed
        read = [event async for event in stream]
    assert missed > 0
    assert len(read) + missed == published
    assert isinstance(read[-1], grouper.ExitEvent)


async def test_a_member_that_ignores_its_kill_is_named_in_the_log_with_where_it_sits(caplog: pytest.LogCaptureFixture) -> None:
    """Every 2 s, as long as it takes; the first time with the stack of its task."""

    async def stubborn(signals: Signals, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        with trio.CancelScope(shield=True):
            await trio.sleep(7)

    with pytest.raises(ErrorTrace) as caught:
        async with grouper.invoke(Ordered([("group", Ordered([Member("stubborn", stubborn, grace=0)]))])):
            pass
    assert caught.group_contains(StopTimeout)
    lines = [record.getMessage() for record in caplog.records if "ignores its kill" in record.getMessage()]
    assert len(lines) == 3
    assert all(line.startswith("member 'group/stubborn' ignores its kill") for line in lines)
    assert ["in stubborn" in line for line in lines] == [True, False, False]
