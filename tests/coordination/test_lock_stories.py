"""Random lives of a lock: programs come, wait, hold, release, die, are out of reach, and have their places removed."""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import TypeAlias

import attrs
import pytest
import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from grouper.coordination import Entry, Lock, LockLost
from grouper.coordination.sqlite import entries

from .faulty import FaultyStore

PROCESSES = 3
LONG = 60.0
"""Seconds after which whoever tries again has done so."""

Step: TypeAlias = tuple[str, int, bool]
"""What happens, to whom, and whether all that follows from it happens before the next step."""

steps = st.tuples(
    st.sampled_from(["come", "come", "come", "leave", "leave", "die", "remove", "fail", "recover", "wait"]),
    st.integers(0, 5),
    st.booleans(),
)


@pytest.fixture(autouse=True)
def quiet() -> Generator[None, None, None]:
    """Places that are taken away are logged."""
    logger = logging.getLogger("grouper")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


@attrs.define(eq=False)
class Contender:
    """Somebody who wants the lock, in a task of a process."""

    store: FaultyStore
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    release: trio.Event = attrs.field(factory=trio.Event)
    token: int | None = None
    holds: bool = False
    ended: bool = False


class Story:
    """One life of one lock. All that it promises is checked whenever somebody holds it."""

    def __init__(self) -> None:
        self.observer = FaultyStore()
        self.stores = [self.observer.process() for _ in range(PROCESSES)]
        self.contenders: list[Contender] = []
        self.granted: list[int] = []

    def queue(self) -> list[Entry]:
        """The entries of those who live, in order of arrival; nothing happens meanwhile."""
        return list(self.observer._db.write(entries.living, "lock", "leader"))

    def holders(self) -> list[Contender]:
        """Who holds it, but for those whose place was taken away and who will learn of it."""
        there = {entry.token for entry in self.queue()}
        return [each for each in self.contenders if each.holds and each.token in there]

    async def contend(self, contender: Contender) -> None:
        with contender.scope:
            try:
                async with Lock(contender.store, "leader").hold() as token:
                    self._granted(contender, token)
                    try:
                        await contender.release.wait()
                    finally:
                        contender.holds = False
            except LockLost:
                pass
        contender.ended = True

    def _granted(self, contender: Contender, token: int) -> None:
        contender.token = token
        contender.holds = True
        queue = self.queue()
        if token not in [entry.token for entry in queue]:
            return  # it was taken away in this very moment
        assert self.holders() == [contender], "one holder"
        assert queue[0].token == token, "in order of arrival"
        assert token > max(self.granted, default=0), "the tokens rise"
        self.granted.append(token)

    async def play(self, plan: list[Step]) -> None:
        async with trio.open_nursery() as nursery:
            for what, who, settled in plan:
                self._act(what, who, nursery)
                if what == "wait":
                    await trio.sleep(who)
                elif what == "recover":
                    await trio.sleep(LONG)
                elif settled:
                    await wait_all_tasks_blocked()
                assert len(self.holders()) <= 1, "one holder"
                if what == "die" and settled:
                    self._somebody_took_over()
            for store in self.stores:
                store.recover()
            await trio.sleep(LONG)
            self._somebody_took_over()
            while waiting := [each for each in self.contenders if not each.ended]:
                (holder,) = self.holders()
                assert holder in waiting
                holder.release.set()
                await wait_all_tasks_blocked()
        assert self.queue() == []

    def _act(self, what: str, who: int, nursery: trio.Nursery) -> None:
        store = self.stores[who % PROCESSES]
        living = [each for each in self.contenders if not each.ended]
        if what == "come":
            self.contenders.append(Contender(store))
            nursery.start_soon(self.contend, self.contenders[-1])
        elif what == "leave" and living:
            chosen = living[who % len(living)]
            if chosen.holds:
                chosen.release.set()
            else:
                chosen.scope.cancel()
        elif what == "die":
            store.die()
        elif what == "remove" and (queue := self.queue()):
            entry = queue[who % len(queue)]
            self.observer._db.write(entries.withdraw, "lock", entry)
        elif what == "fail":
            store.fail("register", "watch_entries")
            store.cut()
        elif what == "recover":
            store.recover()

    def _somebody_took_over(self) -> None:
        """The first in the queue holds it, unless its process cannot reach the store and so cannot know."""
        queue = self.queue()
        if queue and not any(store.fails for store in self.stores):
            (holder,) = self.holders()
            assert holder.token == queue[0].token


@settings(derandomize=True, deadline=None, max_examples=200, phases=(Phase.generate,), suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, max_size=25))
def test_one_holder_at_a_time_in_order_of_arrival_with_rising_tokens(plan: list[Step]) -> None:
    """Whatever happens; and in the end everybody has had it, was cancelled, or was told that it lost it."""
    story = Story()
    trio.run(story.play, plan, clock=MockClock(autojump_threshold=0))
