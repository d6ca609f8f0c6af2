"""Streams from etcd: endpoints that go away or fall silent, and what was compacted meanwhile."""

from __future__ import annotations

import itertools
import os

import pytest
import trio

from grouper.coordination import Deleted, NotFound, Unavailable, WaitGroup
from grouper.coordination.etcd import EtcdStore, from_url, gateway, session, watching
from grouper.coordination.etcd.wire import KV, get

from .etcd_proxy import Fault, Proxy, proxied
from .etcd_server import Etcd

pytestmark = pytest.mark.real_time

numbers = itertools.count(1)


def prefix() -> str:
    return f"watching-{os.getpid()}-{next(numbers)}"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams look after a tenth of a second of silence, and requests go elsewhere after two."""
    monkeypatch.setattr(watching, "SILENCE", 0.1)
    for module in (gateway, session):
        monkeypatch.setattr(module, "TRY", 0.2)


def direct(etcd: Etcd, store: EtcdStore) -> WaitGroup:
    """The group `batch` of a store, by another way than its proxies."""
    return from_url(f"{etcd.url}/{store.session().keys.prefix}").waitgroup("batch")


def in_use(store: EtcdStore, proxies: list[Proxy]) -> Proxy:
    """The proxy that is asked now."""
    return next(proxy for proxy in proxies if store.session().gateway.current.endswith(proxy.endpoint))


async def zeros(group: WaitGroup, n: int) -> None:
    """Cross zero so many times."""
    async with group.store:
        for _ in range(n):
            await group.done()
            await group.add()


async def test_watch_survives_the_end_of_its_endpoint(etcd: Etcd) -> None:
    """At once, by another one; no zero is missed."""
    async with proxied(etcd, prefix(), proxies=2) as (store, proxies):
        group = store.waitgroup("batch")
        await group.create(count=1)
        async with group.watch() as statuses:
            await anext(statuses)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(zeros, direct(etcd, store), 3)
                assert (await anext(statuses)).counter == 0
            await in_use(store, proxies).kill()
            await zeros(direct(etcd, store), 5)
            seen = 1
            with trio.fail_after(4):
                while seen < 8:
                    seen += not (await anext(statuses)).counter


@pytest.mark.usefixtures("impatient")
async def test_watch_through_an_endpoint_that_fell_silent_goes_on_elsewhere(etcd: Etcd) -> None:
    """As when that one is stopped: nothing tells of it, so the group is looked at from time to time."""
    async with proxied(etcd, prefix(), proxies=2) as (store, proxies):
        group = store.waitgroup("batch")
        await group.create(count=1)
        async with group.watch() as statuses, store.watch_entries("member", "batch") as entries:
            await anext(statuses)
            await anext(entries)
            with trio.move_on_after(0.2):
                await anext(statuses)
            with trio.move_on_after(0.2):
                await anext(entries)
            in_use(store, proxies).freeze()
            other = direct(etcd, store)
            async with other.member("w1") as entry:
                with trio.fail_after(8):
                    assert await anext(entries) == (entry,)
                await zeros(other, 2)
                await other.done()
            with trio.fail_after(8):
                async for status in statuses:
                    if not status.counter:
                        break
        for proxy in proxies:
            proxy.thaw()


@pytest.mark.usefixtures("impatient")
async def test_silence_in_which_nothing_happens_costs_no_watch(etcd: Etcd) -> None:
    """The stream stays as it is."""
    async with proxied(etcd, prefix()) as (store, _):
        group = store.waitgroup("batch")
        await group.create(count=1)
        async with group.watch() as statuses:
            await anext(statuses)
            with trio.move_on_after(0.1):
                await anext(statuses)
            assert isinstance(statuses, watching.Statuses)
            watch = statuses._watch
            assert watch is not None
            with trio.move_on_after(0.5):
                await anext(statuses)
            assert statuses._watch is watch
            await group.done()
            assert (await anext(statuses)).counter == 0
            assert statuses._watch is watch


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("rounds", "history"), [(0, False), (1, False), (2, False), (1, True), (2, True)])
async def test_what_was_compacted_is_read_again(etcd: Etcd, rounds: int, history: bool) -> None:
    """A round that ended meanwhile is told, of several the last one, with what it lost if that was not compacted too."""
    async with proxied(etcd, prefix()) as (store, (proxy,)):
        group = store.waitgroup("batch")
        await group.create(count=1)
        other = direct(etcd, store)
        async with group.watch() as statuses:
            await anext(statuses)
            with trio.move_on_after(0.1):
                await anext(statuses)
            proxy.fail(Fault.BEFORE, "/v3/watch", times=1000)
            assert isinstance(statuses, watching.Statuses)
            assert statuses._watch is not None
            statuses._watch.close()
            async with other.store:
                for lost in range(1, rounds + 1):
                    async with other.store.owner():
                        for number in range(lost):
                            await other.store.register("member", "batch", f"lost-{number}", "")
                        await other.done()
                    await other.add()
                await other.add()
            (begun,) = [kv.modified for kv in await read(store, store.session().keys.group("batch").round)]
            etcd.post("/v3/kv/compaction", {"revision": str(begun - 1 if history else revision_of(etcd))})
            proxy.heal()
            with trio.fail_after(8):
                told = [await anext(statuses)]
                while told[-1].counter != 2:
                    told.append(await anext(statuses))
            assert [status.counter for status in told] == [0] * bool(rounds) + [2]
            assert told[0].lost == (rounds if history else 0)


async def read(store: EtcdStore, key: str) -> list[KV]:
    """A key, by the store's way."""
    return (await store.session().gateway.read([get(key)], store.session().call())).kvs(0)


def revision_of(etcd: Etcd) -> int:
    return int(etcd.post("/v3/kv/range", {"key": "AA=="})["header"]["revision"])


@pytest.mark.parametrize("compacted", [False, True])
async def test_deleted_group_is_told_after_its_last_zero(etcd: Etcd, compacted: bool) -> None:
    """Again and again to whoever asks; also if it was made anew."""
    async with from_url(f"{etcd.url}/{prefix()}") as store:
        group = store.waitgroup("batch")
        await group.create(count=1)
        async with group.watch() as statuses:
            await anext(statuses)
            if not compacted:
                with trio.move_on_after(0.05):
                    await anext(statuses)
            await group.done()
            await group.delete()
            await group.create(count=5)
            if compacted:
                etcd.post("/v3/kv/compaction", {"revision": str(revision_of(etcd))})
            else:
                assert (await anext(statuses)).counter == 0
            for _ in range(2):
                with trio.fail_after(5), pytest.raises(Deleted, match="'batch' was deleted"):
                    await anext(statuses)


async def test_stream_goes_on_after_an_outage(etcd: Etcd) -> None:
    """It says so, once for each time that it is asked, and misses nothing."""
    async with proxied(etcd, prefix(), timeout=0.3) as (store, (proxy,)):
        group = store.waitgroup("batch")
        await group.create(count=1)
        async with group.watch() as statuses:
            await anext(statuses)
            proxy.fail(Fault.BEFORE, times=1000)
            proxy.fail(Fault.BEFORE, "/v3/watch", times=1000)
            for _ in range(2):
                with pytest.raises(Unavailable):
                    await anext(statuses)
            await zeros(direct(etcd, store), 1)
            proxy.heal()
            assert (await anext(statuses)).counter == 0


async def test_watch_of_nothing_leaves_nothing_open(etcd: Etcd) -> None:
    """Also where it cannot begin."""
    store = from_url(f"{etcd.url}/{prefix()}")
    with pytest.raises(NotFound):
        async with store.watch("nothing"):
            pytest.fail("there is nothing")
    assert store._sessions == {}


async def test_block_of_a_watch_wraps_nothing(etcd: Etcd) -> None:
    """The exception of a body comes out as it is."""
    async with from_url(f"{etcd.url}/{prefix()}") as store:
        with pytest.raises(LookupError):
            async with store.watch_present() as stream:
                await anext(stream)
                with trio.move_on_after(0.05):
                    await anext(stream)
                raise LookupError


async def test_slow_reader_gets_the_newest(etcd: Etcd) -> None:
    """What came meanwhile comes as one, as far as it has arrived."""
    async with from_url(f"{etcd.url}/{prefix()}") as store, store.owner(), store.watch_present() as stream:
        await anext(stream)
        with trio.move_on_after(0.05):
            await anext(stream)
        for number in range(30):
            await store.register("presence", f"p{number}", "x", "")
        changes = 0
        while True:
            changes += 1
            if len(await anext(stream)) == 30:
                break
        assert changes < 10
