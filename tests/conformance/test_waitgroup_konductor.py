"""Wait groups against konductor's (K1 to K26 of their contract)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from grouper.cli import main
from grouper.coordination import (
    Deleted,
    Exists,
    MemoryStore,
    NotFound,
    Overflow,
    Phase,
    Status,
    Underflow,
    WaitGroup,
    opening,
)
from grouper.coordination.errors import MOST
from tests.cli.conftest import GROUPER, Command, Starting
from tests.coordination.meeting import Meeting

HOUR = 3600.0


async def made(*, count: int = 0, ttl: float | None = None) -> tuple[MemoryStore, WaitGroup]:
    """A group that was just made, and the store that it is in."""
    store = MemoryStore()
    group = store.waitgroup("batch")
    await group.create(count=count, ttl=ttl)
    return store, group


async def counter(group: WaitGroup) -> int:
    return (await group.status()).counter


# --- state


@pytest.mark.contract("waitgroup K1")
async def test_k01_a_client_says_what_changes_and_not_what_the_count_is() -> None:
    """Two that have read the same count both change it, and neither change is lost."""
    store, group = await made()
    other = store.process().waitgroup("batch")
    assert await counter(group) == await counter(other) == 0
    await group.add(2)
    await other.add(3)
    assert await counter(group) == 5


@pytest.mark.contract("waitgroup K2")
@pytest.mark.real_time
def test_k02_a_new_group_counts_zero_and_is_done(command: Command) -> None:
    """From its first instant, without anybody that has to look at it first."""
    assert command("create", "batch").status == 0
    status = command("status", "batch", "-o", "json").document["status"]
    assert (status["counter"], status["phase"]) == (0, "Done")


@pytest.mark.contract("waitgroup K3")
async def test_k03_a_group_can_be_used_again() -> None:
    """Done, Waiting, Done; each time from an empty group on is a round."""
    _, group = await made()
    for _ in range(3):
        await group.add(2)
        assert (await group.status()).phase is Phase.WAITING
        await group.done(2)
        assert (await group.status()).phase is Phase.DONE


@pytest.mark.contract("waitgroup K4")
async def test_k04_a_member_has_an_id_and_a_process() -> None:
    """Who owns nothing has no name there either."""
    _, group = await made(count=1)
    async with group.member("part1") as member:
        status = await group.status()
        assert (status.counter, status.members) == (2, (member,))
        assert member.id == "part1"
        assert member.host
        assert member.pid > 0


# --- add and done


@pytest.mark.contract("waitgroup K5")
@pytest.mark.real_time
def test_k05_what_is_added_to_a_missing_group_makes_none(command: Command) -> None:
    """It is told at once."""
    assert command("add", "batch").status == 3
    assert command("status", "batch").status == 3


@pytest.mark.contract("waitgroup K6")
@pytest.mark.parametrize("n", [0, -1])
async def test_k06_add_counts_up_and_done_counts_down(n: int) -> None:
    """By one or more: what is negative is most often a mistake."""
    _, group = await made(count=5)
    with pytest.raises(ValueError, match="less than 1"):
        await group.add(n)
    with pytest.raises(ValueError, match="less than 1"):
        await group.done(n)
    await group.done(3)
    assert await counter(group) == 2


@pytest.mark.contract("waitgroup K7")
async def test_k07_one_done_too_many_is_an_underflow() -> None:
    """And nothing is changed: it takes nobody else's."""
    _, group = await made(count=2)
    with pytest.raises(Underflow, match=r"2 tickets to settle, not 3"):
        await group.done(3)
    await group.done(2)
    with pytest.raises(Underflow):
        await group.done()
    assert await counter(group) == 0


@pytest.mark.contract("waitgroup K7")
async def test_k07_a_ticket_can_be_settled_but_once() -> None:
    """A second `done` of the same worker says so, where each worker has a ticket with an id."""
    _, group = await made()
    mine, _others = await group.add(2, tickets=True)
    assert await group.done(ticket=mine)
    assert not await group.done(ticket=mine)
    assert await counter(group) == 1


@pytest.mark.contract("waitgroup K8")
async def test_k08_what_no_int32_holds_is_an_overflow() -> None:
    """The group never reads as Done by that."""
    _, group = await made(count=MOST)
    with pytest.raises(Overflow):
        await group.add()
    assert (await group.status()).phase is Phase.WAITING


@pytest.mark.contract("waitgroup K9")
async def test_k09_who_changes_at_the_same_time_does_not_fail(meeting: Meeting) -> None:
    """On no store: nobody has to try again and give up some time."""
    group = await meeting.group()

    async def work() -> None:
        async with meeting.handle() as store:
            for _ in range(2):
                await store.waitgroup("batch").add(2)
                await store.waitgroup("batch").done()

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(work)
    assert await counter(group) == 8


@pytest.mark.contract("waitgroup K10")
@pytest.mark.real_time
def test_k10_all_who_add_at_once_are_told_that_it_is_done(command: Command, start: Starting) -> None:
    """Whatever the others do meanwhile: eight processes, eight times the status 0."""
    command("create", "batch")
    started = [start("add", "batch") for _ in range(8)]
    assert [each.end().status for each in started] == [0] * 8
    assert command.counter("batch") == 8


@pytest.mark.contract("waitgroup K11")
@pytest.mark.real_time
def test_k11_what_is_repeated_with_its_token_is_done_once(command: Command) -> None:
    """As a script does that cannot know whether the first time was."""
    command("create", "batch")
    for _ in range(3):
        assert command("add", "batch", "--delta", 5, "--token", "build-7").status == 0
    assert command.counter("batch") == 5


@pytest.mark.contract("waitgroup K12")
@pytest.mark.real_time
def test_k12_done_prints_what_is_left(command: Command) -> None:
    """As text, or as a document."""
    command("create", "batch", "--count", 3)
    assert command("done", "batch").out == "batch: 2\n"
    assert command("done", "batch", "-o", "json").document["status"]["counter"] == 1


# --- wait


@pytest.mark.contract("waitgroup K13")
async def test_k13_who_waits_is_woken() -> None:
    """In the very instant of the last `done`, and not at the next look."""
    store, group = await made(count=1)
    async with trio.open_nursery() as nursery:
        ended = trio.Event()

        async def waits() -> None:
            await group.wait()
            assert trio.current_time() == done_at
            ended.set()

        nursery.start_soon(waits)
        await trio.sleep(7.77)
        done_at = trio.current_time()
        await store.process().waitgroup("batch").done()
        await ended.wait()


@pytest.mark.contract("waitgroup K14")
async def test_k14_a_wait_at_zero_returns_at_once() -> None:
    """Also if nothing was ever added."""
    _, group = await made()
    assert not (await group.wait()).started


@pytest.mark.contract("waitgroup K14")
async def test_k14_who_comes_before_the_first_add_can_say_so() -> None:
    """He waits for the start too; or there is no such time, because the group is made with its count."""
    _, group = await made()
    async with trio.open_nursery() as nursery:
        statuses: list[Status] = []

        async def waits() -> None:
            statuses.append(await group.wait(started=True))

        nursery.start_soon(waits)
        await wait_all_tasks_blocked()
        await group.add()
        await wait_all_tasks_blocked()
        assert not statuses
        await group.done()
    assert [status.started for status in statuses] == [True]
    assert (await made(count=1))[1].name == "batch"


@pytest.fixture
def in_mock_time(monkeypatch: pytest.MonkeyPatch) -> MockClock:
    """Let the command run on a store in memory, and in trio with a clock that jumps."""
    store, clock = MemoryStore(), MockClock(autojump_threshold=0)

    def opened(url: str | None) -> MemoryStore:
        return store

    def nothing(url: str | None) -> None:
        pass

    monkeypatch.setattr(opening, "open_inline", nothing)
    monkeypatch.setattr(opening, "open_store", opened)
    monkeypatch.setattr(trio, "run", partial(trio.run, clock=clock))
    return clock


def run(*words: str) -> int:
    return main(["waitgroup", *words])


@pytest.mark.contract("waitgroup K15")
@pytest.mark.real_time
def test_k15_a_timeout_is_as_long_as_it_says(in_mock_time: MockClock) -> None:
    """Ten minutes are ten minutes."""
    run("create", "batch", "--count", "1")
    began = in_mock_time.current_time()
    assert run("wait", "batch", "--timeout", "10m") == 4
    assert in_mock_time.current_time() - began == 600


@pytest.mark.contract("waitgroup K15")
@pytest.mark.real_time
@pytest.mark.parametrize("words", [(), ("--timeout", "2d")])
def test_k15_a_wait_within_its_timeout_ends_when_the_group_does(in_mock_time: MockClock, words: tuple[str, ...]) -> None:
    """After a day, if that is when; without a timeout too."""
    run("create", "batch")
    run("add", "batch", "--for", "24h")
    began = in_mock_time.current_time()
    assert run("wait", "batch", "--allow-lost", *words) == 0
    assert in_mock_time.current_time() - began == pytest.approx(24 * HOUR)


@pytest.mark.contract("waitgroup K16")
@pytest.mark.real_time
def test_k16_a_missing_group_is_told_at_once(command: Command) -> None:
    """It is no timeout."""
    found = command("wait", "batch", "--timeout", "30m")
    assert found.status == 3
    assert "there is no wait group 'batch'" in found.err


@pytest.mark.contract("waitgroup K17")
@pytest.mark.parametrize("anew", [False, True])
async def test_k17_who_waits_for_a_deleted_group_is_told(anew: bool) -> None:
    """One that is made anew is another one, though it counts zero."""
    store, group = await made(count=1)
    async with group.watch() as statuses:
        await anext(statuses)
        await store.waitgroup("batch").delete()
        if anew:
            await store.waitgroup("batch").create()
        with pytest.raises(Deleted):
            await anext(statuses)


@pytest.mark.contract("waitgroup K18")
async def test_k18_a_zero_that_is_over_at_once_ends_a_wait() -> None:
    """Sixty times of sixty."""
    store, group = await made(count=1)
    other = store.process().waitgroup("batch")
    ended = 0
    for _ in range(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(group.wait)
            await wait_all_tasks_blocked()
            await other.done()
            await other.add()
        ended += 1
    assert (ended, await counter(group)) == (60, 1)


@pytest.mark.contract("waitgroup K19")
async def test_k19_a_wait_can_be_given_up_at_any_time() -> None:
    """At once, and nothing is changed by it."""
    _, group = await made(count=1)
    began = trio.current_time()
    with trio.move_on_after(1.25) as scope:
        await group.wait()
    assert scope.cancelled_caught
    assert trio.current_time() - began == 1.25
    assert await counter(group) == 1


# --- create, delete, ttl, the command


@pytest.mark.contract("waitgroup K20")
async def test_k20_create_again_is_no_error_but_with_another_ttl() -> None:
    """Which would be ignored otherwise. The count is that of the first call."""
    _, group = await made(count=2, ttl=HOUR)
    assert not await group.create(count=5, ttl=HOUR)
    with pytest.raises(Exists, match="a ttl of 3600 s, not a ttl of 60 s"):
        await group.create(ttl=60)
    assert await counter(group) == 2


@pytest.mark.contract("waitgroup K21")
@pytest.mark.real_time
def test_k21_delete_is_no_error_where_there_is_nothing(command: Command) -> None:
    """It says so."""
    command("create", "batch")
    assert (command("delete", "batch").out, command("delete", "batch").out) == ("batch: deleted\n", "batch: was not there\n")


@pytest.mark.contract("waitgroup K22")
async def test_k22_a_group_goes_when_it_was_done_for_its_ttl() -> None:
    """Nobody has to do anything for that."""
    _, group = await made(count=1, ttl=HOUR)
    await trio.sleep(2 * HOUR)
    await group.done()
    await trio.sleep(HOUR - 1)
    assert await counter(group) == 0
    await trio.sleep(1)
    with pytest.raises(NotFound):
        await group.status()


STATUSES: dict[str, int] = {
    "create batch --count 2": 0,
    "done batch": 0,
    "wait batch --timeout 0": 4,
    "done batch --delta 5": 6,
    "create batch --ttl 1h": 6,
    "done batch --delta 2 --ticket x": 2,
    "add a/b": 2,
    "status none": 3,
    "list --store sqlite:/none/store.db": 1,
    "run batch -- false": 1,
    "run batch -- true": 0,
}


@pytest.mark.contract("waitgroup K23")
@pytest.mark.real_time
def test_k23_the_exit_status_says_what_went_wrong(command: Command) -> None:
    """One status for each thing that a script may want to do something about."""
    assert {words: command(*words.split()).status for words in STATUSES} == STATUSES


@pytest.mark.contract("waitgroup K23")
@pytest.mark.real_time
def test_k23_lost_and_deleted_have_a_status_of_their_own(command: Command) -> None:
    """To have lost something is not to be done, and to be deleted is neither."""
    command("create", "batch")
    command("add", "batch", "--for", "1ms")
    assert [command("wait", "batch", *more).status for more in ((), ("--allow-lost",))] == [5, 0]
    assert command("run", "batch", "--", *GROUPER, "waitgroup", "delete", "batch").status == 7


@pytest.mark.contract("waitgroup K24")
@pytest.mark.real_time
@pytest.mark.parametrize("at", ["before", "between", "after"])
def test_k24_the_place_that_is_named_is_the_place(command: Command, tmp_path: Path, at: str) -> None:
    """Wherever in the line it is named, and whatever the environment says."""
    store = ["--store", f"sqlite:{tmp_path / 'other.db'}"]
    words = {
        "before": [*store, "waitgroup", "create", "batch"],
        "between": ["waitgroup", *store, "create", "batch"],
        "after": ["waitgroup", "create", "batch", *store],
    }
    assert main(words[at]) == 0
    assert command("status", "batch").status == 3
    assert command("status", "batch", *store).status == 0


@pytest.mark.contract("waitgroup K25")
async def test_k25_what_a_dead_worker_counted_for_is_lost() -> None:
    """So the wait ends, and is not told that all was done."""
    store, group = await made()
    other = store.process()
    found: list[Status] = []

    async def waits() -> None:
        found.append(await group.wait())

    async with other.owner(), trio.open_nursery() as nursery:
        await other.register("member", "batch", "part1", "")
        nursery.start_soon(waits)
        await wait_all_tasks_blocked()
        assert not found
        other.die()
    assert [(status.counter, status.lost) for status in found] == [(0, 1)]


@pytest.mark.contract("waitgroup K26")
async def test_k26_nobody_sets_a_count_and_done_ends_no_member() -> None:
    """A member counts until it has left, or is dead, whatever the others settle."""
    store, group = await made(count=1)
    async with group.member("part1"):
        other = store.process().waitgroup("batch")
        await other.done()
        with pytest.raises(Underflow, match="beside 1 of members, which settle their own"):
            await other.done()
        assert await counter(group) == 1
