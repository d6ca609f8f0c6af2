"""The ring of events and its streams, through random publishing and reading, are what a plain list and cursors in it would be."""

from __future__ import annotations

import attrs
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from grouper import EventStream, Exit, StartEvent
from grouper.events import Entry, EventRing


@attrs.frozen
class Thing:
    path: str
    exit: Exit | None = None


@attrs.define
class Cursor:
    """What a stream is: a place in the list of all events, from which it goes on; what it skipped; and which things it shows."""

    place: int
    divisor: int
    missed: int = 0


def _read(events: list[int], cursor: Cursor, limit: int) -> int | None:
    """What the stream tells next; None if there is nothing."""
    behind = len(events) - cursor.place - limit
    if behind > 0:
        cursor.missed += behind
        cursor.place += behind
    while cursor.place < len(events):
        cursor.place += 1
        if events[cursor.place - 1] % cursor.divisor == 0:
            return events[cursor.place - 1]
    return None


operations = st.one_of(
    st.tuples(st.just("publish"), st.sampled_from([1, 1, 2, 5, 70, 150])),
    st.tuples(st.just("attach"), st.sampled_from([1, 1, 2, 7])),
    st.tuples(st.just("read"), st.integers(0, 5)),
    st.tuples(st.just("read all"), st.integers(0, 5)),
    st.tuples(st.just("close"), st.integers(0, 5)),
)


async def _compare(keep: int, backlog: int, todo: list[tuple[str, int]]) -> None:
    ring: EventRing[Thing] = EventRing(keep, backlog)
    events: list[int] = []
    ended = False
    kept = keep
    open_streams: list[tuple[EventStream[Thing, int], Cursor]] = []

    async def read(stream: EventStream[Thing, int], cursor: Cursor) -> int | None:
        expected = _read(events, cursor, max(keep, backlog))
        found: int | None = None
        with trio.move_on_after(1) as scope:
            try:
                found = await anext(stream)
            except StopAsyncIteration:
                assert ended
        assert found == expected
        assert scope.cancelled_caught == (expected is None and not ended)
        return found

    for operation, number in todo:
        if operation == "publish":
            for _ in range(number):
                ring.publish(StartEvent, 0.0, Thing(str(len(events))))
                events.append(len(events))
        elif operation == "attach":

            def make(entry: Entry[Thing], divisor: int = number) -> int | None:
                value = int(entry[2].path)
                return value if value % divisor == 0 else None

            stream = await EventStream(ring, make, lambda: ended).__aenter__()
            open_streams.append((stream, Cursor(max(0, len(events) - keep), number)))
        elif open_streams:
            stream, cursor = open_streams[number % len(open_streams)]
            if operation == "close":
                await stream.__aexit__(None, None, None)
                open_streams.remove((stream, cursor))
            elif operation == "read":
                await read(stream, cursor)
            else:
                while await read(stream, cursor) is not None:
                    pass
        for stream, cursor in open_streams:
            assert stream.missed == cursor.missed + max(0, len(events) - cursor.place - max(keep, backlog))
        kept = max([kept, *(min(len(events) - cursor.place, max(keep, backlog)) for _, cursor in open_streams)])
        assert len(ring.entries) <= kept + max(64, kept // 4), "the ring grows without bound"
    ended = True
    ring.wake()
    for stream, cursor in open_streams:
        while await read(stream, cursor) is not None:
            pass


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.sampled_from([0, 1, 3, 64, 100]), st.sampled_from([0, 2, 10, 200]), st.lists(operations, max_size=25))
def test_streams_are_cursors_in_a_list(keep: int, backlog: int, todo: list[tuple[str, int]]) -> None:
    """A stream tells the last `keep` events and all that come, in order, but for those that it missed, which it counts."""
    trio.run(_compare, keep, backlog, todo, clock=trio.testing.MockClock(autojump_threshold=0))
