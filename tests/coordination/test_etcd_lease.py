"""Being alive in etcd: the lease, who keeps it, and what happens when it is lost."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import AsyncIterator

import pytest
import trio

from grouper.coordination import MemberLost, NotFound, Unavailable
from grouper.coordination.etcd import EtcdStore, from_url
from grouper.coordination.etcd import lease as lease_module

from .etcd_proxy import Fault, proxied
from .etcd_server import Etcd, free_port

pytestmark = pytest.mark.real_time

numbers = itertools.count(1)


def prefix() -> str:
    return f"lease-{os.getpid()}-{next(numbers)}"


@pytest.fixture
async def store(etcd: Etcd) -> AsyncIterator[EtcdStore]:
    """A store with a prefix of its own."""
    async with from_url(f"{etcd.url}/{prefix()}", lease=2.0) as store:
        yield store


def held(store: EtcdStore) -> lease_module.Lease:
    lease = store.session().life.held()
    assert lease is not None
    return lease


async def renewed(lease: lease_module.Lease) -> None:
    """Wait until a lease was renewed, of which nothing else tells."""
    sent = lease.sent
    with trio.fail_after(5):
        while lease.sent == sent:  # noqa: ASYNC110 (as above)
            await trio.sleep(0.02)


def is_there(etcd: Etcd, lease: lease_module.Lease) -> bool:
    return int(etcd.post("/v3/lease/timetolive", {"ID": str(lease.id)}).get("TTL", -1)) > 0


async def test_entry_lives_longer_than_a_lease_that_is_not_renewed(store: EtcdStore) -> None:
    """The shortest is 2 seconds."""
    async with store.owner():
        entry = await store.register("lock", "leader", "a", "")
        await trio.sleep(2.7)
        assert await store.entries("lock", "leader") == (entry,)


async def test_lease_that_was_taken_away_is_told(etcd: Etcd, store: EtcdStore) -> None:
    """To each block that owned something; what is registered from then on is under a new one."""
    async with store.owner() as lost, store.owner() as lost_too:
        await store.register("lock", "leader", "a", "")
        lease = held(store)
        etcd.post("/v3/lease/revoke", {"ID": str(lease.id)})
        with trio.fail_after(5):
            await lost()
            await lost_too()
        assert await store.entries("lock", "leader") == ()
        entry = await store.register("lock", "leader", "a", "")
        assert held(store) is not lease
        with trio.move_on_after(0.1) as scope:
            await lost()
        assert scope.cancelled_caught
        assert await store.entries("lock", "leader") == (entry,)


async def test_member_whose_lease_was_taken_away_is_told(etcd: Etcd, store: EtcdStore) -> None:
    """Its block is cancelled, and it is counted as lost."""
    group = store.waitgroup("batch")
    await group.create()
    with trio.fail_after(5), pytest.raises(MemberLost):
        async with group.member("w1"):
            etcd.post("/v3/lease/revoke", {"ID": str(held(store).id)})
            await trio.sleep_forever()
    assert (await group.status()).lost == 1


async def test_loss_that_concerns_nothing_of_a_block_is_not_told_to_it(etcd: Etcd, store: EtcdStore) -> None:
    """What others registered before it began is not its own."""
    async with store.owner() as lost:
        await store.register("lock", "leader", "a", "")
        async with store.owner() as lost_inside:
            etcd.post("/v3/lease/revoke", {"ID": str(held(store).id)})
            await lost()
            with trio.move_on_after(0.05) as scope:
                await lost_inside()
            assert scope.cancelled_caught


async def test_lost_lease_is_found_out_by_registering(etcd: Etcd, store: EtcdStore) -> None:
    """Before the next renewal; the entry is made, under a new one, and the loss is told."""
    async with store.owner() as lost:
        await store.register("lock", "leader", "a", "")
        etcd.post("/v3/lease/revoke", {"ID": str(held(store).id)})
        entry = await store.register("lock", "leader", "b", "")
        await lost()
        assert await store.entries("lock", "leader") == (entry,)


async def test_time_that_went_by_is_noticed_at_once(etcd: Etcd, store: EtcdStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was stopped, or whose machine was suspended, does not ask etcd first, which may not have noticed yet."""
    async with store.owner() as lost:
        await store.register("lock", "leader", "a", "")
        lease = held(store)
        monkeypatch.setattr(lease_module, "now", lambda: time.monotonic() + 1e6)
        assert store.session().life.held() is None
        with trio.fail_after(1):
            await lost()
        entry = await store.register("lock", "leader", "a", "")
        assert await store.entries("lock", "leader") == (entry,)
        assert not is_there(etcd, lease)


async def test_withdrawing_what_was_taken_away_says_so(etcd: Etcd, store: EtcdStore) -> None:
    """As for any entry that is no longer there."""
    async with store.owner():
        entry = await store.register("lock", "leader", "a", "")
        etcd.post("/v3/lease/revoke", {"ID": str(held(store).id)})
        assert not await store.withdraw("lock", entry)


async def test_entry_that_goes_with_its_lease_was_not_withdrawn(etcd: Etcd) -> None:
    """Also where the answer to the request did not come: that the entry is gone does not say why."""
    async with proxied(etcd, prefix()) as (store, (proxy,)), store.owner():
        entry = await store.register("lock", "leader", "a", "")
        lease = held(store)
        etcd.post("/v3/lease/revoke", {"ID": str(lease.id)})
        store.session().life.lose(lease, "the test says so")
        proxy.fail(Fault.AFTER)
        assert not await store.withdraw("lock", entry)


async def test_another_block_keeps_the_lease_when_one_ends(store: EtcdStore) -> None:
    """One of them at a time, whichever there is."""
    begun, ended = trio.Event(), trio.Event()

    async def first() -> None:
        async with store.owner():
            begun.set()
            await ended.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first)
        await begun.wait()
        async with store.owner():
            entry = await store.register("lock", "leader", "a", "")
            ended.set()
            await renewed(held(store))
            assert await store.entries("lock", "leader") == (entry,)


async def test_last_block_that_ends_revokes_the_lease(etcd: Etcd, store: EtcdStore) -> None:
    """What was not withdrawn goes at once, and members of that are lost."""
    group = store.waitgroup("batch")
    await group.create()
    async with store.owner():
        async with store.owner():
            await store.register("member", "batch", "w1", "")
            lease = held(store)
        assert is_there(etcd, lease)
    assert not is_there(etcd, lease)
    status = await group.status()
    assert (status.counter, status.lost) == (0, 1)


async def test_block_of_an_owner_wraps_nothing(store: EtcdStore) -> None:
    """Neither an exception nor a cancellation."""
    with pytest.raises(LookupError):
        async with store.owner():
            await store.register("lock", "leader", "a", "")
            raise LookupError
    with trio.CancelScope() as scope:
        async with store.owner():
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert await store.entries("lock", "leader") == ()


async def test_block_ends_though_etcd_cannot_be_reached(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Soon, also where it is cancelled; the lease runs out by itself."""
    monkeypatch.setattr(lease_module, "REVOKE", 0.1)
    async with proxied(etcd, prefix()) as (store, (proxy,)):
        for cancelled in (False, True):
            proxy.thaw()
            with trio.fail_after(2), trio.CancelScope() as scope:
                async with store.owner():
                    await store.register("lock", "leader", "a" + "b" * cancelled, "")
                    proxy.freeze()
                    if cancelled:
                        scope.cancel()


async def test_lease_is_lost_in_time_when_etcd_cannot_be_reached(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not later than etcd gives it to another, and not long before; a shorter outage is no loss."""
    monkeypatch.setattr(lease_module, "LOOK", 0.05)
    async with proxied(etcd, prefix()) as (store, (proxy,)), store.owner() as lost:
        await store.register("lock", "leader", "a", "")
        held(store).ttl = 0.6
        proxy.freeze()
        with trio.move_on_after(0.3) as scope:
            await lost()
        assert scope.cancelled_caught
        proxy.thaw()
        await renewed(held(store))
        proxy.freeze()
        lease = held(store)
        with trio.fail_after(5):
            await lost()
        assert lease.left <= 0
        proxy.thaw()


async def test_nothing_is_registered_outside_of_a_block(store: EtcdStore) -> None:
    """Nobody would keep it alive."""
    with pytest.raises(RuntimeError, match=r"within a block of `owner\(\)`"):
        await store.register("lock", "leader", "a", "")


async def test_member_of_nothing_has_no_lease_left_over(store: EtcdStore) -> None:
    """What could not be registered is not owned."""
    async with store.owner():
        with pytest.raises(NotFound):
            await store.register("member", "nothing", "w1", "")
        assert store.session().mine == {}


def test_store_can_be_used_in_several_runs(etcd: Etcd) -> None:
    """One after the other, and at the same time in threads: connections and lease are a run's own."""
    store = from_url(f"{etcd.url}/{prefix()}")
    both = threading.Barrier(2)

    async def use(id: str, meet: bool) -> None:
        async with store.owner():
            await store.register("lock", "leader", id, "")
            if meet:
                await trio.to_thread.run_sync(both.wait)
                assert len(await store.entries("lock", "leader")) == 2
                await trio.to_thread.run_sync(both.wait)

    trio.run(use, "a", False)
    trio.run(use, "b", False)
    threads = [threading.Thread(target=trio.run, args=(use, id, True)) for id in "cd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    trio.run(use, "e", False)
    assert len(store._sessions) <= 1


async def test_registration_that_fails_tells_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no etcd: there can be no lease, and nothing was changed."""
    store = from_url(f"etcd://127.0.0.1:{free_port()}/p", timeout=0.2)
    async with store.owner():
        with pytest.raises(Unavailable) as caught:
            await store.register("lock", "leader", "a", "")
        assert caught.value.token is None
