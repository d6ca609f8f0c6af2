"""Wait groups in etcd: what its keys and leases have to do with it."""

from __future__ import annotations

import contextlib
import itertools
import os
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio

from grouper.coordination import NotFound, Overflow, Underflow, WaitGroup
from grouper.coordination.errors import MOST
from grouper.coordination.etcd import EtcdStore, from_url
from grouper.coordination.etcd.settling import AT_ONCE

from .etcd_server import Etcd

pytestmark = pytest.mark.real_time

numbers = itertools.count(1)


@pytest.fixture
async def store(etcd: Etcd) -> AsyncIterator[EtcdStore]:
    """A store with a prefix of its own."""
    async with from_url(f"{etcd.url}/groups-{os.getpid()}-{next(numbers)}", lease=10.0) as store:
        yield store


@pytest.fixture
async def group(store: EtcdStore) -> WaitGroup:
    """A group that was just made."""
    group = store.waitgroup("batch")
    await group.create()
    return group


def keys(etcd: Etcd, store: EtcdStore, name: str = "batch") -> dict[str, str]:
    """The keys of a group, without what they begin with, and their leases."""
    base = store.session().keys.group(name).all
    return {key.removeprefix(base): lease for key, lease in etcd.keys(base).items()}


def seconds_left(etcd: Etcd, lease: str) -> int:
    """Seconds until a lease ends; -1 if there is none."""
    return int(etcd.post("/v3/lease/timetolive", {"ID": lease}).get("TTL", 0))


async def counter(group: WaitGroup) -> int:
    return (await group.status()).counter


async def test_no_zero_of_sixty_is_missed(group: WaitGroup) -> None:
    """Each is over at once, by an `add` right after the `done`."""
    await group.add()
    zeros = 0
    async with group.watch() as statuses, trio.open_nursery() as nursery:

        async def cross() -> None:
            for _ in range(60):
                await group.done()
                await group.add()
            await group.add()

        nursery.start_soon(cross)
        async for status in statuses:
            zeros += not status.counter
            if status.counter == 2:
                break
    assert zeros == 60


async def test_no_zero_is_missed_by_reads_that_are_cancelled(group: WaitGroup) -> None:
    """Over and over, wherever they are."""
    await group.add()
    seen: list[int] = []
    async with group.watch() as statuses, trio.open_nursery() as nursery:

        async def cross() -> None:
            for _ in range(20):
                await group.done()
                await group.add()
            await group.add()

        nursery.start_soon(cross)
        while seen[-1:] != [2]:
            with trio.move_on_after(0.002):
                seen.append((await anext(statuses)).counter)
    assert seen.count(0) == 20


async def test_ttl_runs_while_the_group_is_empty_and_only_then(etcd: Etcd, store: EtcdStore) -> None:
    """By a lease of its key, which an `add` or a member takes off, and `done` or leaving puts on."""
    group = store.waitgroup("batch")
    await group.create(ttl=50)
    lease = keys(etcd, store)["g"]
    assert 40 < seconds_left(etcd, lease) <= 50
    await group.add(2)
    assert keys(etcd, store)["g"] == "0"
    await group.done()
    assert keys(etcd, store)["g"] == "0"
    await group.done()
    assert keys(etcd, store)["g"] not in ("0", lease)
    async with group.member():
        assert keys(etcd, store)["g"] == "0"
    assert keys(etcd, store)["g"] != "0"
    (ticket,) = await group.add(tickets=True, expires_in=60)
    assert keys(etcd, store)["g"] == "0"
    assert await group.done(ticket=ticket)
    assert keys(etcd, store)["g"] != "0"


async def test_group_that_is_made_with_tickets_has_no_lease(etcd: Etcd, store: EtcdStore) -> None:
    """Its ttl has not begun."""
    await store.waitgroup("batch").create(ttl=50, count=1)
    assert keys(etcd, store)["g"] == "0"


@pytest.mark.parametrize("verb", ["status", "list", "wait", "watch"])
async def test_whoever_finds_a_group_empty_begins_its_ttl(etcd: Etcd, store: EtcdStore, verb: str) -> None:
    """Where nobody did who emptied it: the last member was lost."""
    group = store.waitgroup("batch")
    await group.create(ttl=50)
    owner = from_url(f"{etcd.url}/{store.session().keys.prefix}")
    if verb == "watch":
        async with group.watch() as statuses:
            async with owner.owner():
                await owner.register("member", "batch", "w1", "")
            async for status in statuses:
                if status.started and not status.counter:
                    break
    else:
        async with owner.owner():
            await owner.register("member", "batch", "w1", "")
        assert keys(etcd, store)["g"] == "0"
        verbs: dict[str, Callable[[], Awaitable[object]]] = {"status": group.status, "list": store.list, "wait": group.wait}
        await verbs[verb]()
    assert keys(etcd, store)["g"] != "0"
    assert (await group.status()).lost == 1


@pytest.mark.parametrize("verb", ["create", "list"])
async def test_what_a_group_left_behind_is_cleared_away(etcd: Etcd, store: EtcdStore, verb: str) -> None:
    """When its key has gone by its ttl."""
    group = store.waitgroup("batch")
    await group.create(ttl=50, count=1)
    await group.done()
    etcd.post("/v3/lease/revoke", {"ID": keys(etcd, store)["g"]})
    assert "g" not in keys(etcd, store)
    with pytest.raises(NotFound):
        await group.status()
    if verb == "list":
        assert await store.list() == ()
        assert keys(etcd, store) == {}
    else:
        assert await group.create()
        status = await group.status()
        assert (status.started, status.lost) == (False, 0)


async def test_many_tickets_are_settled_in_one_step(etcd: Etcd, group: WaitGroup) -> None:
    """More than a transaction of etcd's can name; with parts of a key, and with deadlines among them."""
    for _ in range(3):
        await group.add(50, tickets=True)
    await group.add(40, expires_in=60)
    await group.add(1000)
    base = 150 + 40
    assert base > AT_ONCE
    async with group.watch() as statuses:
        assert (await anext(statuses)).counter == base + 1000
        await group.done(base + 990)
        assert (await anext(statuses)).counter == 10
    with pytest.raises(Underflow, match="has 10 tickets"):
        await group.done(11)
    await group.done(10)
    status = await group.status()
    assert (status.counter, status.lost) == (0, 0)


async def test_many_tickets_at_the_same_time_are_settled_once(group: WaitGroup) -> None:
    """Though others settle and add meanwhile; whoever comes too late is told."""
    for _ in range(5):
        await group.add(50, tickets=True)
    settled: list[int] = []

    async def settle(n: int) -> None:
        with contextlib.suppress(Underflow):
            await group.done(n)
            settled.append(n)

    async with trio.open_nursery() as nursery:
        for n in (AT_ONCE + 10, AT_ONCE, *[1] * 10, AT_ONCE + 20):
            nursery.start_soon(settle, n)
        for _ in range(10):
            nursery.start_soon(group.add)
    assert len([n for n in settled if n > 1]) == 2
    assert await counter(group) == 260 - sum(settled)


async def test_more_deadlines_than_a_transaction_holds_are_refused(group: WaitGroup) -> None:
    """They can go without telling, so each must be named. Nothing is changed."""
    for _ in range(2):
        await group.add(50, tickets=True, expires_in=60)
    with pytest.raises(ValueError, match="use several calls"):
        await group.done(AT_ONCE + 1)
    assert await counter(group) == 100
    await group.done(AT_ONCE)
    assert await counter(group) == 100 - AT_ONCE


async def test_lease_of_tickets_goes_with_the_last_of_them(etcd: Etcd, group: WaitGroup, store: EtcdStore) -> None:
    """An hour's leases of what was settled long ago would be many."""
    first, second = await group.add(2, tickets=True, expires_in=3600)
    (lease,) = {lease for key, lease in keys(etcd, store).items() if key.startswith("d/")}
    await group.done(ticket=first)
    assert seconds_left(etcd, lease) > 3500
    await group.done(ticket=second)
    assert seconds_left(etcd, lease) == -1
    await group.add(5, expires_in=3600)
    (lease,) = {lease for key, lease in keys(etcd, store).items() if key.startswith("d/")}
    await group.done(5)
    assert seconds_left(etcd, lease) == -1


async def test_deadline_of_what_is_left_stays(etcd: Etcd, group: WaitGroup, store: EtcdStore) -> None:
    """Where a part of a key is settled."""
    await group.add(64, expires_in=3600)
    before = {lease for key, lease in keys(etcd, store).items() if key.startswith("d/")}
    await group.done(33)
    assert {lease for key, lease in keys(etcd, store).items() if key.startswith("d/")} == before
    assert await counter(group) == 31


async def test_each_ticket_is_settled_by_one_of_many(group: WaitGroup) -> None:
    """Thirty tasks, twenty tickets, of which a third share a key."""
    await group.add(10)
    await group.add(5, tickets=True)
    await group.add(5, expires_in=60)
    outcomes: list[bool] = []

    async def settle() -> None:
        try:
            outcomes.append(await group.done())
        except Underflow:
            outcomes.append(False)

    async with trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(settle)
    assert sorted(outcomes) == [False] * 10 + [True] * 20
    status = await group.status()
    assert (status.counter, status.lost) == (0, 0)


async def test_token_is_kept_for_ten_minutes(etcd: Etcd, group: WaitGroup, store: EtcdStore) -> None:
    """Under a lease that programs share, so that each call need not have one."""
    await group.add(token="a")
    async with from_url(f"{etcd.url}/{store.session().keys.prefix}") as other:
        await other.waitgroup("batch").done(token="b")
    (lease,) = set(etcd.keys(f"/{store.session().keys.prefix}/op/").values())
    assert 600 <= seconds_left(etcd, lease) <= 660


async def test_token_of_a_group_that_was_deleted_is_not_for_the_next(group: WaitGroup) -> None:
    """It was another call; to believe that it was made would lose this one."""
    from grouper.coordination import Exists

    await group.add(token="a")
    await group.delete()
    await group.create()
    with pytest.raises(Exists, match="token 'a'"):
        await group.add(token="a")


async def test_sum_near_the_most_is_looked_at(group: WaitGroup) -> None:
    """By members and by one ticket more, too."""
    await group.add(MOST - 2)
    async with group.member("w1"):
        await group.add()
        with pytest.raises(Overflow, match="the most is"):
            await group.add()
        with pytest.raises(Overflow, match="the most is"):
            async with group.member("w2"):
                pytest.fail("there is no room")
        await group.done(MOST - 1)
        await group.add(5)
        assert await counter(group) == 6


async def test_what_others_wrote_is_shown(etcd: Etcd, group: WaitGroup, store: EtcdStore) -> None:
    """As a member without host and pid: an operator may have written it by hand."""
    key = f"{store.session().keys.group('batch').members}by-hand"
    etcd.post("/v3/kv/put", {"key": b64encode(key.encode()).decode(), "value": b64encode(b"hello").decode()})
    (member,) = (await group.status()).members
    assert (member.id, member.value, member.host, member.pid) == ("by-hand", "hello", "", 0)
    from grouper.coordination import Exists

    with pytest.raises(Exists, match="'by-hand'"):
        async with group.member("by-hand"):
            pytest.fail("it is taken")


async def test_group_that_was_emptied_behind_a_hint_begins_a_round(etcd: Etcd, group: WaitGroup, store: EtcdStore) -> None:
    """What a store remembers to be there may be gone."""
    other = from_url(f"{etcd.url}/{store.session().keys.prefix}")
    await group.add()
    async with other.owner():
        await other.waitgroup("batch").done()
        await other.register("member", "batch", "w1", "")
    assert (await group.status()).lost == 1
    await group.add()
    assert (await group.status()).lost == 0


async def test_losses_are_those_of_their_round(etcd: Etcd, group: WaitGroup, store: EtcdStore) -> None:
    """Exactly, of members, tickets and both, with others that leave; also as told later by `status`."""
    await group.add()
    told: list[int] = []
    async with group.watch() as statuses:
        await anext(statuses)
        for lost in (3, 0, 1):
            other = from_url(f"{etcd.url}/{store.session().keys.prefix}")
            async with other.owner():
                for number in range(lost):
                    await other.register("member", "batch", f"lost-{number}", "")
                async with group.member("leaves"), group.member("leaves too"):
                    await group.add(2, expires_in=60)
                await group.done(3)
                if not lost:
                    assert await counter(group) == 0
            async for status in statuses:
                if not status.counter:
                    told.append(status.lost)
                    break
            assert (await group.status()).lost == lost
            await group.add()
    assert told == [3, 0, 1]


async def test_lease_of_tokens_is_made_by_whoever_comes_first(etcd: Etcd, store: EtcdStore, group: WaitGroup) -> None:
    """Where several find at the same time that it is not there."""
    lease = str(store.session().keys.op_lease())
    for _ in range(5):
        if seconds_left(etcd, lease) > 0:
            etcd.post("/v3/lease/revoke", {"ID": lease})
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(group.add)
    assert await counter(group) == 40


async def test_longest_times_are_taken(store: EtcdStore) -> None:
    """Longer than etcd's longest lease."""
    group = store.waitgroup("batch")
    await group.create(ttl=9.9e9)
    await group.add(expires_in=9.9e9)
    assert await counter(group) == 1
