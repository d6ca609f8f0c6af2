"""What a queue-ordered group promises (section 1.6 of the contract)."""

from __future__ import annotations

import signal

import pytest

from grouper import QueueOrdered

from .runners import Stage, ended, watched


@pytest.mark.contract("38")
async def test_38_queue_ordered_starts_in_order() -> None:
    """A member is started when the one before it is ready, as in an ordered group."""
    stage = Stage("ab", polite=True)
    async with watched(QueueOrdered(stage.members())):
        assert await stage.news() == ["a starts"]
        stage["a"].make_ready()
        assert await stage.news() == ["b starts"]


@pytest.mark.contract("38")
async def test_38_queue_ordered_stops_in_order() -> None:
    """The first member is told first; the one after it is told when that one has exited."""
    stage = Stage("abc", ready=True)
    async with watched(QueueOrdered(stage.members())) as process:
        await stage.set_out()
        process.signal(signal.SIGTERM)
        assert await stage.news() == ["a SIGTERM"]
        stage["a"].exit()
        assert await stage.news() == ["a exits", "b SIGTERM"]
        stage["b"].exit()
        assert await stage.news() == ["b exits", "c SIGTERM"]
        stage["c"].exit()
        assert (await ended(process)).ok


@pytest.mark.contract("38")
async def test_38_queue_ordered_stops_in_order_during_the_start() -> None:
    """A stop signal during the start: those ready are told in order, and the starting member last."""
    stage = Stage("abcd", ready=True, polite=True)
    stage["c"].ready = False
    async with watched(QueueOrdered(stage.members())) as process:
        await stage.set_out()
        process.signal(signal.SIGTERM)
        assert await stage.news() == ["a SIGTERM", "a exits", "b SIGTERM", "b exits", "c SIGTERM", "c exits"]
        assert not (await ended(process)).was_ready
