"""A program that is present in a store for as long as it runs."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import grouper
from grouper import Ordered, State
from grouper.coordination import Entry, InvalidName, Presence
from grouper.coordination.owning import WITHDRAW_WITHIN
from tests.groups.members import watched

from .faulty import GONE, FaultyStore
from .meeting import Meeting


async def present(store: FaultyStore) -> list[tuple[str, str]]:
    """Who is present, by name and value, as another process sees it."""
    return [(entry.name, entry.value) for entry in await store.process().present()]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


async def test_it_is_present_from_ready_to_exit(meeting: Meeting) -> None:
    """Its value is the entry; others see it, and its end."""
    async with meeting.handle() as other, other.watch_present("api") as stream:
        assert await anext(stream) == ()
        async with grouper.invoke(Presence(meeting.store, "api", "10.0.0.7:8080")) as process:
            assert await anext(stream) == (process.value,)
            assert (process.value.name, process.value.value) == ("api", "10.0.0.7:8080")
        assert await anext(stream) == ()


async def test_any_number_can_be_present_under_a_name() -> None:
    """Those of one process, too, also if they are one presence that is run twice."""
    store = FaultyStore()
    presence = Presence(store, "api", "a")
    async with grouper.invoke(Ordered([("1", presence), ("2", presence), ("3", Presence(store, "api", "b"))])):
        assert await present(store) == [("api", "a"), ("api", "a"), ("api", "b")]
    assert await present(store) == []


async def test_it_registers_again_when_it_was_taken_away(caplog: pytest.LogCaptureFixture) -> None:
    """It stays ready, with a new entry; the log is told."""
    store = FaultyStore()
    async with grouper.invoke(Presence(store, "api", "a")) as process:
        store.die()
        await trio.sleep(10)
        assert await present(store) == [("api", "a")]
        assert process.state is State.READY
    assert await present(store) == []
    assert warnings(caplog) == ["presence 'api' was taken away: it is registered again"]


async def test_it_registers_again_when_somebody_removed_it() -> None:
    """As an operator may do."""
    store = FaultyStore()
    async with grouper.invoke(Presence(store, "api", "a")) as process:
        first: Entry = process.value
        assert await store.withdraw("presence", first)
        await trio.sleep(10)
        (second,) = await store.present("api")
        assert second.token > first.token


async def test_it_does_not_register_faster_and_faster() -> None:
    """Where somebody takes it away again and again; after some time of peace it begins anew."""
    store = FaultyStore()
    async with grouper.invoke(Presence(store, "api", "a")):
        for _ in range(20):
            for entry in await store.present("api"):
                await store.withdraw("presence", entry)
            await trio.sleep(1)
        assert store.calls.count("register") < 15
        await trio.sleep(60)
        assert len(await store.present("api")) == 1
        store.die()
        await trio.sleep(0.11)
        assert len(await store.present("api")) == 1


async def test_it_is_starting_as_long_as_the_store_is_unavailable(caplog: pytest.LogCaptureFixture) -> None:
    """And becomes ready when it is there; the log is told once."""
    store = FaultyStore()
    store.fail("register")
    async with watched(Presence(store, "api")) as process:
        await trio.sleep(600)
        assert process.ready_at is None
        assert 100 < store.calls.count("register") < 300
        store.recover()
        await trio.sleep(10)
        assert process.state is State.READY
        assert await present(store) == [("api", "")]
    assert warnings(caplog) == [f"presence 'api' is held up: {GONE}"]


async def test_it_is_stopped_cleanly_while_the_store_is_unavailable() -> None:
    """At once."""
    store = FaultyStore()
    store.fail("register")
    async with watched(Presence(store, "api")) as process:
        await trio.sleep(600)
        process.signal(15)
        assert (await process.wait()).ok
        assert trio.current_time() == 600


async def test_outage_takes_nothing_away() -> None:
    """It is as present as before, and is not registered twice."""
    store = FaultyStore()
    async with grouper.invoke(Presence(store, "api", "a")):
        store.fail("register", "watch_entries", "withdraw")
        store.cut()
        await trio.sleep(600)
        store.recover()
        await trio.sleep(60)
        assert await present(store) == [("api", "a")]
        assert store.calls.count("register") == 1


async def test_loss_in_an_outage_is_made_good_after_it() -> None:
    """Ready all the time."""
    store = FaultyStore()
    async with grouper.invoke(Presence(store, "api", "a")) as process:
        store.fail("register", "watch_entries")
        store.die()
        await trio.sleep(60)
        assert await present(store) == []
        store.recover()
        await trio.sleep(10)
        assert await present(store) == [("api", "a")]
        assert process.state is State.READY


async def test_it_is_withdrawn_at_once_when_it_is_told_to_stop() -> None:
    """A clean exit."""
    store = FaultyStore()
    async with grouper.invoke(Presence(store, "api")) as process:
        await trio.sleep(1)
    assert process.exit is not None
    assert process.exit.ok
    assert trio.current_time() == 1
    assert store.calls.count("withdraw") == 1


@pytest.mark.parametrize("fault", ["fails", "hangs"])
async def test_store_that_cannot_be_told_of_the_end_is_logged(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is no failure: the store finds out by itself."""
    store = FaultyStore()
    async with watched(Presence(store, "api")) as process:
        if fault == "fails":
            store.fail("withdraw")
        else:
            store.hangs.add("withdraw")
        process.signal(15)
        assert (await process.wait()).ok
    assert trio.current_time() <= WITHDRAW_WITHIN
    (warning,) = warnings(caplog)
    assert "presence 'api' was not withdrawn, and stays until this process is taken for dead" in warning


async def test_kill_withdraws_it_too() -> None:
    """A cancellation leaves nothing."""
    store = FaultyStore()
    with trio.move_on_after(1):
        async with grouper.invoke(Presence(store, "api")):
            await trio.sleep_forever()
    assert await present(store) == []


async def test_it_can_be_run_again() -> None:
    """It is a description."""
    store = FaultyStore()
    presence = Presence(store, "api")
    for _ in range(2):
        async with grouper.invoke(presence):
            await wait_all_tasks_blocked()
            assert await present(store) == [("api", "")]


@pytest.mark.parametrize(
    ("name", "value", "error", "text"),
    [
        ("a/b", "", InvalidName, "presence"),
        (3, "", TypeError, "presence"),
        ("api", 8080, TypeError, "presence 'api': value=8080 is not a string"),
    ],
)
def test_arguments_are_checked_when_it_is_made(name: Any, value: Any, error: type[Exception], text: str) -> None:
    """The error names it."""
    with pytest.raises(error, match=text):
        Presence(FaultyStore(), name, value)


def test_url_is_no_store() -> None:
    """The error says what makes one."""
    with pytest.raises(TypeError, match="Presence: 'sqlite:x' is not a store"):
        Presence("sqlite:x", "api")  # type: ignore[arg-type]  # what is tested  # pyright: ignore[reportArgumentType]
