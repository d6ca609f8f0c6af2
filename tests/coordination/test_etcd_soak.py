"""Three nodes of etcd, leaders that are killed, endpoints that are stopped: a minute or more each. `-m soak -s` prints figures."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from grouper.coordination import Unavailable, Underflow, WaitGroup
from grouper.coordination.etcd import from_url

from .etcd_server import Etcd, running

pytestmark = [pytest.mark.real_time, pytest.mark.soak]

CLIENTS = 8
KILLS = 10
WORKERS = 40


@pytest.fixture
def cluster() -> Iterator[Etcd]:
    """Three nodes, of an etcd that may be killed."""
    try:
        with running(3, sound=True) as etcd:
            yield etcd
    except LookupError as error:
        pytest.skip(str(error))


def show(text: str) -> None:
    sys.stdout.write(f"\n{text}\n")


class Ledger:
    """What clients were told: what is certain, and how often they had to repeat a call to know."""

    def __init__(self) -> None:
        self.expected: int = 0
        self.calls: Counter[str] = Counter()
        self.slowest: float = 0.0
        self.over: bool = False

    async def client(self, group: WaitGroup) -> None:
        """Change the group at random until it is over."""
        chance = random.Random()
        async with group.store, group.store.owner():
            while not self.over:
                n = chance.randint(1, 3)
                what = chance.choice(("add", "add", "done", "join"))
                began = time.monotonic()
                if what == "add":
                    await self._certainly(partial(group.add, n))
                    self.expected += n
                elif what == "done":
                    with contextlib.suppress(Underflow):
                        await self._certainly(partial(group.done, n))
                        self.expected -= n
                else:
                    await self._join(group)
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.calls[what] += 1

    async def _certainly(self, change: Callable[..., Awaitable[object]]) -> None:
        token = uuid.uuid4().hex
        while True:
            try:
                await change(token=token)
            except Unavailable as error:
                self.calls["not known" if error.token else "not made"] += 1
            else:
                return

    async def _join(self, group: WaitGroup) -> None:
        while True:
            try:
                entry = await group.store.register("member", group.name, uuid.uuid4().hex, "")
                break
            except Unavailable as error:
                self.calls["not known" if error.token else "not made"] += 1
        while True:
            try:
                await group.store.withdraw("member", entry)
                break
            except Unavailable as error:
                self.calls["not known" if error.token else "not made"] += 1


async def test_ledger_and_store_agree_though_leaders_are_killed(cluster: Etcd) -> None:
    """Ten leaders by SIGKILL under the load of eight clients: what was acknowledged, or repeated until it was, is what there is."""
    url = f"{cluster.url}/ledger"
    ledger = Ledger()
    group = from_url(url).waitgroup("batch")
    await group.create(count=100)
    ledger.expected = 100
    async with trio.open_nursery() as nursery:
        for _ in range(CLIENTS):
            nursery.start_soon(ledger.client, from_url(url, timeout=1.5, lease=30.0).waitgroup("batch"))
        for _ in range(KILLS):
            await trio.sleep(random.uniform(1.0, 2.0))
            leader = await trio.to_thread.run_sync(find_leader, cluster)
            cluster.kill(leader)
            await trio.sleep(2.5)
            cluster.restart(leader)
            await trio.to_thread.run_sync(cluster.wait)
        ledger.over = True
    with trio.fail_after(40):
        while (status := await group.status()).members:  # noqa: ASYNC110 (what is left goes with its lease)
            await trio.sleep(0.2)
    each = [await counted_by(cluster, node) for node in range(3)]
    assert len(set(each)) == 1, f"the nodes of this etcd disagree, which no client can help: (counter, lost) is {each}"
    drift = status.counter - ledger.expected
    show(f"{KILLS} leaders killed: {dict(ledger.calls)}, slowest call {ledger.slowest:.1f} s, drift {drift}")
    assert (status.counter, status.lost) == (ledger.expected, 0)
    await group.store.aclose()


async def counted_by(cluster: Etcd, node: int) -> tuple[int, int]:
    """What one node has, counter and lost."""
    async with from_url(f"etcd://{cluster.endpoints[node]}/ledger") as store:
        status = await store.waitgroup("batch").status()
        return status.counter, status.lost


def find_leader(cluster: Etcd) -> int:
    end = time.monotonic() + 20
    while True:
        try:
            return cluster.leader()
        except LookupError:
            assert time.monotonic() < end
            time.sleep(0.05)


async def test_as_many_are_lost_as_were_killed_together_with_the_leader(cluster: Etcd) -> None:
    """Forty leased processes, of which twenty are killed with it, and twenty leave."""
    url = f"{cluster.url}/workers"
    group = from_url(url).waitgroup("batch")
    async with group.store, trio.open_nursery() as nursery:
        await group.create()
        workers: list[trio.Process] = []
        for number in range(WORKERS):
            command = [sys.executable, "-m", "tests.coordination.etcd_worker", url, f"w{number}", "8"]
            run = partial(trio.run_process, command, stdout=subprocess.PIPE, check=False, cwd=Path(__file__).parents[2])
            worker = await nursery.start(run)
            assert await worker.stdout.receive_some(1) == b"!"
            workers.append(worker)
        assert (await group.status()).counter == WORKERS
        began = time.monotonic()
        leader = await trio.to_thread.run_sync(find_leader, cluster)
        cluster.kill(leader)
        for worker in workers[::2]:
            os.kill(worker.pid, signal.SIGKILL)
        for worker in workers[1::2]:
            os.kill(worker.pid, signal.SIGTERM)
        with trio.fail_after(60):
            status = await group.wait()
        seconds = time.monotonic() - began
        show(f"{WORKERS // 2} of {WORKERS} killed with the leader: wait ended after {seconds:.1f} s, {status.lost} lost")
        assert (status.counter, status.lost) == (0, WORKERS // 2)
        assert [await worker.wait() for worker in workers[1::2]] == [0] * (WORKERS // 2)


@pytest.mark.parametrize("which", ["follower", "leader"])
async def test_stopped_endpoint_does_not_hang_a_waiter(cluster: Etcd, which: str) -> None:
    """It returns within 10 seconds of the last `done`."""
    url = f"{cluster.url}/stopped"
    waiter, worker = from_url(url), from_url(url)
    async with waiter, worker:
        group = waiter.waitgroup("batch")
        await group.create(count=1)
        leader = await trio.to_thread.run_sync(find_leader, cluster)
        node = leader if which == "leader" else (leader + 1) % 3
        waiter.session().gateway._place = node
        worker.session().gateway._place = (node + 1) % 3
        async with group.watch() as statuses:
            await anext(statuses)
            with trio.move_on_after(1):
                await anext(statuses)
            cluster.pause(node)
            try:
                await worker.waitgroup("batch").done()
                began = time.monotonic()
                with trio.fail_after(10):
                    assert (await anext(statuses)).counter == 0
                show(f"{which} stopped: the waiter returned after {time.monotonic() - began:.1f} s")
                began = time.monotonic()
                await group.status()
                show(f"{which} stopped: the next call took {time.monotonic() - began:.1f} s")
            finally:
                cluster.resume(node)
