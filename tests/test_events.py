"""What a group tells: the ring of events and the streams that read it."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import grouper
from grouper import EntranceEvent, Event, EventStream, Exit, ExitEvent, Ordered, Parallel, Process, Signals, StartEvent
from grouper.events import BACKLOG, EventRing, build
from grouper.state import Ended


async def service(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
    task_status.started()
    await signals.wait()


def told(event: Event) -> str:
    """An event in short: + started, * ready, - ended."""
    marks: dict[type[Event], str] = {StartEvent: "+", EntranceEvent: "*", ExitEvent: "-"}
    return marks[type(event)] + event.path


async def next_ones(stream: EventStream[Process, Event], count: int) -> list[str]:
    """The next so many events, which must be there."""
    with trio.fail_after(1):
        return [told(await anext(stream)) for _ in range(count)]


async def all_ones(stream: EventStream[Process, Event]) -> list[str]:
    """The events up to the end of the stream, which must come."""
    with trio.fail_after(1):
        return [told(event) async for event in stream]


# Events of a tree


async def test_life_of_a_member_is_three_events() -> None:
    """Started, ready, ended: in this order, with the path."""
    async with grouper.invoke(Ordered([("a", service), ("b", service)])) as process, process.events() as stream:
        process.signal(signal.SIGTERM)
        assert await all_ones(stream) == ["+a", "*a", "+b", "*b", "-b", "-a"]


async def test_event_has_the_time_of_the_fact() -> None:
    """Times are those of trio's clock, and those of the process."""
    async with grouper.invoke(Ordered([("a", service)])) as process:
        await trio.sleep(5)
        (a,) = process.children
        process.signal(signal.SIGTERM)
        async with process.events() as stream:
            times = [event.time async for event in stream]
    assert times == [a.started_at, a.ready_at, a.ended_at]
    assert times[2] == times[0] + 5


async def test_exit_event_has_the_exit() -> None:
    """The event of an end holds how it ended: the very `Exit` that `wait()` returns."""
    async with grouper.invoke(Ordered([("a", service)])) as process:
        (a,) = process.children
        async with process.events() as stream:
            process.signal(signal.SIGTERM)
            exits = [event.exit async for event in stream if isinstance(event, ExitEvent)]
        assert exits == [await a.wait()]


def tree() -> Ordered:
    return Ordered([("db", service), ("web", Ordered([("api", service), ("ui", Parallel([("x", service)]))]))])


async def test_root_tells_of_all_beneath_it() -> None:
    """Paths are relative to the root, groups are told as any member, and the root itself is not."""
    async with grouper.invoke(tree()) as process, process.events() as stream:
        assert await next_ones(stream, 10) == [
            *("+db", "*db", "+web", "+web/api", "*web/api", "+web/ui", "+web/ui/x", "*web/ui/x", "*web/ui", "*web")
        ]


async def test_nested_group_tells_of_what_is_beneath_it() -> None:
    """A stream of a group leaves out its siblings and the group itself."""
    async with grouper.invoke(tree()) as process:
        web = process.children[1]
        async with web.events() as stream:
            process.signal(signal.SIGTERM)
            assert await all_ones(stream) == [
                *("+web/api", "*web/api", "+web/ui", "+web/ui/x", "*web/ui/x", "*web/ui", "-web/ui/x", "-web/ui", "-web/api")
            ]


async def test_stream_of_no_group_has_nothing_to_tell() -> None:
    """What has no members ends its stream with itself."""
    async with grouper.invoke(Ordered([("a", service)])) as process, process.children[0].events() as stream:
        process.signal(signal.SIGTERM)
        assert await all_ones(stream) == []


async def test_stream_ends_with_its_process_and_not_with_the_tree() -> None:
    """A nested group's stream ends while the tree goes on."""
    tree = Parallel([("web", Ordered([("api", service)])), ("db", service)], termination_signal=None)
    async with grouper.invoke(tree) as process:
        web, db = process.children
        async with web.events() as stream:
            web.signal(signal.SIGTERM)
            assert (await all_ones(stream))[-1] == "-web/api"
        assert db.exit is None


async def test_stream_wakes_for_the_end() -> None:
    """A reader that waits when the process ends is not left waiting, though no event of its own is to come."""
    async with grouper.invoke(Parallel([("a", service), ("b", service)], termination_signal=None)) as process:
        a = process.children[0]
        ends: list[str] = []

        async def listen() -> None:
            async with a.events() as stream:
                ends.extend(await all_ones(stream))
                ends.append("end")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await wait_all_tasks_blocked()
            a.signal(signal.SIGTERM)
        assert ends == ["end"]


@pytest.mark.parametrize(("buffer", "last"), [(0, []), (1, ["*b"]), (3, ["*a", "+b", "*b"]), (64, ["+a", "*a", "+b", "*b"])])
async def test_late_stream_begins_with_the_last_events(buffer: int, last: list[str]) -> None:
    """One that is attached late is told the last `event_buffer` events first, then what comes."""
    group = Ordered([("a", service), ("b", service)], event_buffer=buffer)
    async with grouper.invoke(group) as process, process.events() as stream:
        process.signal(signal.SIGTERM)
        assert await all_ones(stream) == [*last, "-b", "-a"]


async def test_stream_after_the_end_tells_the_last_and_ends() -> None:
    """A process can be asked for its events when it is over."""
    async with grouper.invoke(Ordered([("a", service)])) as process:
        process.signal(signal.SIGTERM)
        await process.wait()
    async with process.events() as stream:
        assert await all_ones(stream) == ["+a", "*a", "-a"]


async def test_outermost_group_says_how_many_events_are_kept() -> None:
    """There is one ring in a tree: a nested group's `event_buffer` changes nothing."""
    inner = Ordered([("a", service), ("b", service)], event_buffer=1)
    async with grouper.invoke(Ordered([("web", inner)], event_buffer=64)) as process, process.children[0].events() as stream:
        assert await next_ones(stream, 4) == ["+web/a", "*web/a", "+web/b", "*web/b"]


async def test_wrapper_passes_the_buffer_on() -> None:
    """The root's `event_buffer` holds also where the root is wrapped."""
    group = Ordered([("a", service)], event_buffer=0)
    async with grouper.invoke(grouper.Proxy(Signals(), group)) as process, process.events() as stream:
        process.signal(signal.SIGTERM)
        assert await all_ones(stream) == ["-a"]


async def test_streams_read_each_for_itself() -> None:
    """What one listener has read is still there for another."""
    async with grouper.invoke(Ordered([("a", service)])) as process, process.events() as one, process.events() as other:
        assert await next_ones(one, 2) == ["+a", "*a"]
        assert await next_ones(other, 2) == ["+a", "*a"]


async def test_cancelled_read_loses_no_event() -> None:
    """An event that comes after a cancelled wait is the next that is read."""
    async with grouper.invoke(Ordered([("a", service)])) as process, process.events() as stream:
        await next_ones(stream, 2)
        with trio.move_on_after(1) as scope:
            await anext(stream)
        assert scope.cancelled_caught
        process.signal(signal.SIGTERM)
        assert await all_ones(stream) == ["-a"]


async def test_read_cancelled_when_an_event_is_there_loses_it_not() -> None:
    """The read checks for a cancellation before it takes the event."""
    async with grouper.invoke(Ordered([("a", service)])) as process, process.events() as stream:
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(stream)
        assert scope.cancelled_caught
        assert await next_ones(stream, 1) == ["+a"]


async def test_burst_loses_nobody_who_reads() -> None:
    """An attached stream is told of every start, though all come in one step and the ring keeps few."""
    group = Parallel([(str(number), service) for number in range(2_000)], event_buffer=1)
    async with grouper.background(group) as process, process.events() as stream:
        await process.wait_ready()
        started = [event async for event in take(stream, 4_000) if isinstance(event, StartEvent)]
    assert len(started) == 2_000
    assert stream.missed == 0


async def take(stream: EventStream[Process, Event], count: int) -> AsyncIterator[Event]:
    for _ in range(count):
        yield await anext(stream)


# The ring by itself


@attrs.define
class Fact:
    """A source of events."""

    path: str
    exit: Exit | None = None

    def _exit_as(self, ending: Ended) -> Exit:
        error, was_ready, killed, started_at, ended_at = ending
        return Exit(path=self.path, error=error, was_ready=was_ready, killed=killed, started_at=started_at, ended_at=ended_at)


def numbers(stream_of: EventRing[Fact]) -> EventStream[Fact, int]:
    """A stream of the numbers that the paths are; it ends when a negative one was published."""
    return EventStream(stream_of, lambda entry: int(entry[2].path), lambda: stream_of.entries[-1][2].path == "-1")


def publish(ring: EventRing[Fact], *paths: int) -> None:
    for path in paths:
        ring.publish(StartEvent, 0.0, Fact(str(path)))


async def read(stream: EventStream[Fact, int]) -> list[int]:
    with trio.fail_after(1):
        return [number async for number in stream]


async def test_stream_that_is_too_far_behind_goes_on_with_the_oldest_kept() -> None:
    """What is beyond the backlog is counted in `missed`, before it is noticed by a read and after."""
    ring: EventRing[Fact] = EventRing(keep=2, backlog=5)
    async with numbers(ring) as stream:
        publish(ring, *range(1, 300), -1)
        assert stream.missed == 295
        assert await read(stream) == [296, 297, 298, 299, -1]
        assert stream.missed == 295


async def test_missed_adds_up() -> None:
    """A stream that falls behind twice has missed the sum."""
    ring: EventRing[Fact] = EventRing(keep=0, backlog=2)
    async with numbers(ring) as stream:
        publish(ring, *range(10))
        assert await anext(stream) == 8
        publish(ring, *range(10, 20), -1)
        assert await read(stream) == [19, -1]
        assert stream.missed == 8 + 10


@pytest.mark.parametrize("keep", [1, 63, 64, 65, 100, 200, 1_000])
def test_ring_keeps_the_last_events_it_was_told_to_keep(keep: int) -> None:
    """Whatever the number: old events are dropped in batches, but never one that is still to be kept."""
    ring: EventRing[Fact] = EventRing(keep)
    for number in range(300):
        publish(ring, number)
        assert len(ring.entries) >= min(keep, number + 1)


async def test_ring_keeps_more_than_its_backlog_where_it_was_told_to() -> None:
    """`event_buffer` holds also where it is more than the backlog."""
    ring: EventRing[Fact] = EventRing(keep=60, backlog=5)
    publish(ring, *range(500), -1)
    async with numbers(ring) as stream:
        assert await read(stream) == [*range(441, 500), -1]


async def test_ring_keeps_what_an_attached_stream_has_not_read() -> None:
    """Up to the backlog, a listener may read as slowly as it likes."""
    ring: EventRing[Fact] = EventRing(keep=1)
    async with numbers(ring) as stream:
        publish(ring, *range(5_000), -1)
        assert await read(stream) == [*range(5_000), -1]


@pytest.mark.parametrize("attached", [True, False])
async def test_ring_forgets_what_nobody_will_read(attached: bool) -> None:
    """Without a stream that is behind, memory does not grow with the number of events."""
    ring: EventRing[Fact] = EventRing(keep=8)
    async with numbers(ring) as stream:
        for number in range(2_000):
            publish(ring, number)
            if attached:
                await anext(stream)
            else:
                await stream.__aexit__(None, None, None)
    assert len(ring.entries) < 200
    assert ring.total == 2_000


async def test_slowest_stream_counts() -> None:
    """A stream that has read all does not let the ring forget what another has not."""
    ring: EventRing[Fact] = EventRing(keep=0)
    async with numbers(ring) as slow:
        async with numbers(ring) as quick:
            publish(ring, *range(300), -1)
            assert len(await read(quick)) == 301
        assert len(await read(slow)) == 301


async def test_every_waiting_stream_is_woken() -> None:
    """One event wakes all readers; a cancelled one is no longer among them."""
    ring: EventRing[Fact] = EventRing(keep=0)
    got: list[int] = []

    async def listen() -> None:
        async with numbers(ring) as stream:
            got.append(await anext(stream))

    publish(ring, 0)
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await listen()
        publish(ring, 7)
    assert got == [7, 7]


async def test_reading_is_a_checkpoint() -> None:
    """A listener with much to read lets other tasks run."""
    ring: EventRing[Fact] = EventRing(keep=3)
    publish(ring, 1)
    async with numbers(ring) as stream:
        with trio.testing.assert_checkpoints():
            await anext(stream)


def test_default_backlog() -> None:
    """A stream may be 65,536 events behind."""
    assert EventRing[Fact](keep=0).backlog == BACKLOG == 65_536


def test_events_are_values() -> None:
    """Events that say the same are equal, cannot be changed, and differ by their kind."""
    events: list[Event] = [StartEvent("web", 1.0), StartEvent("web", 1.0), EntranceEvent("web", 1.0)]
    assert events[0] == events[1] != events[2]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        StartEvent("web", 1.0).time = 2.0  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def test_event_is_built_of_what_the_ring_keeps() -> None:
    """Kind, time and source give the event; an end has its exit."""
    exit = Exit(path="web", error=None, was_ready=True, killed=False, started_at=0.0, ended_at=2.0)
    source = Fact("web", exit)
    assert build((EntranceEvent, 1.0, source, None)) == EntranceEvent("web", 1.0)
    assert build((ExitEvent, 2.0, source, (None, True, False, 0.0, 2.0))) == ExitEvent("web", 2.0, exit)
