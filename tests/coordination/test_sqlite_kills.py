"""Programs that are killed, stopped and forked while they use a store of one machine. `test_sqlite_soak` has the same at length."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import Any, Final, Self

import attrs
import pytest
import trio

from grouper.coordination import Store, open_store
from grouper.coordination.sqlite import threads

from .workers import BARE, FULL, Op, inline, make, opened

pytestmark = pytest.mark.real_time

ROOT: Final = Path(__file__).parents[2]
PATIENCE: Final = 60.0
"""Seconds after which a program that says nothing has failed."""
BASE: Final = 1_000_000
"""What the group counts that never comes to zero."""


class Program:
    """A program of `workers`, killed at the end of its block."""

    def __init__(self, name: str, *arguments: object) -> None:
        command = [sys.executable, "-m", "tests.coordination.workers", name, *map(str, arguments)]
        self.name: str = name
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
        )
        self.pid: int = self.process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.process.__exit__(None, None, None)

    def hear(self) -> str:
        """The next line that it says, "" at its end."""
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], PATIENCE)[0], f"{self.name} says nothing"
        return self.process.stdout.readline().decode().rstrip()

    def tell(self, line: object = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())

    def ask(self, line: object = "") -> str:
        self.tell(line)
        return self.hear()

    def finish(self) -> None:
        """End its input, and wait for its end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert not self.process.wait(PATIENCE)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def dies(self) -> None:
        """Wait for its end, by a kill -9 of its own."""
        assert self.process.wait(PATIENCE) == -signal.SIGKILL

    def stops(self) -> None:
        """Wait until it is stopped."""
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store with the two groups of `workers`."""
    url = f"sqlite:{tmp_path / 'store.db'}"
    with inlined(url) as store:
        assert inline(store.create(FULL, None, BASE))
        assert inline(store.create(BARE, None, 0))
    return url


@contextlib.contextmanager
def inlined(url: str) -> Generator[Any]:
    """The store, in this thread."""
    store = opened(url)
    try:
        yield store
    finally:
        inline(store.aclose())


def counter(url: str, name: str = FULL) -> int:
    with inlined(url) as store:
        return int(inline(store.status(name)).counter)


# --- kills at random


@attrs.define
class Tally:
    """What came of a run of `tally`s."""

    acknowledged: int = 0
    refused: int = 0
    in_flight: Counter[bool] = attrs.field(factory=Counter[bool])
    """Changes of whose outcome their program did not live to hear, by whether they had been made."""


def written(ledger: Path) -> tuple[dict[str, Op], list[tuple[str, Any]]]:
    """The changes that were tried, and what was acknowledged."""
    tried: dict[str, Op] = {}
    heard: list[tuple[str, Any]] = []
    for line in ledger.read_text().splitlines():
        fields = json.loads(line)
        if len(fields) == 2:
            heard.append((fields[0], fields[1]))
        else:
            tried[fields[0]] = tuple(fields)
    return tried, heard


def tallied(url: str, folder: Path, programs: int, kills: int, seed: int = 0) -> Tally:
    """Have programs make changes; kill one after the other at random, and have another repeat what it was at; count it all."""
    chance = random.Random(seed)
    found = Tally()
    tried: dict[str, Op] = {}
    results: dict[str, list[Any]] = {}
    database = sqlite3.connect(url.removeprefix("sqlite:"), isolation_level=None)
    number = 0

    with contextlib.ExitStack() as stack:
        running: dict[Path, tuple[Program, list[Op]]] = {}

        def start(*unsettled: Op) -> None:
            nonlocal number
            number += 1
            ledger = folder / f"ledger-{number}"
            ledger.touch()
            program = stack.enter_context(Program("tally", url, ledger, number, *map(json.dumps, unsettled)))
            running[ledger] = program, list(unsettled)

        def end(ledger: Path) -> list[Op]:
            """Kill it; what it was at, or had not come to."""
            program, unsettled = running.pop(ledger)
            with program:
                program.kill()
            ops, heard = written(ledger)
            ledger.unlink()
            tried.update(ops)
            for token, result in heard:
                results.setdefault(token, []).append(result)
            (*_, last), tokens = ("", *ops), {token for token, _ in heard}
            if last and last not in tokens and last not in {op[0] for op in unsettled}:
                ((made,),) = database.execute("SELECT count(*) FROM op WHERE token = ?", (last,))
                found.in_flight[bool(made)] += 1
                unsettled.append(ops[last])
            return [op for op in unsettled if op[0] not in tokens]

        for _ in range(programs):
            start()
        for _ in range(kills):
            least = chance.choice((1, 1_000, 10_000))  # bytes: some have just begun, some have done a hundred changes
            while not (working := [ledger for ledger in running if ledger.stat().st_size >= least]):
                time.sleep(0.001)
            time.sleep(chance.random() * 0.005)  # at any moment
            start(*end(chance.choice(working)))
        left = [op for ledger in list(running) for op in end(ledger)]

    with inlined(url) as store:
        for op in left:
            for _ in range(2):
                results.setdefault(op[0], []).append(make(store, op))
        expected = Counter({FULL: BASE, BARE: 0})
        for token, outcomes in results.items():
            _, verb, group, n, _ = tried[token]
            made = [outcome for outcome in outcomes if outcome is not None]
            assert all(outcome == made[0] for outcome in made), (tried[token], outcomes)
            if made and made[0] is not False:
                expected[group] += -n if verb == "done" else n
            ((kept,),) = database.execute("SELECT count(*) FROM op WHERE token = ?", (token,))
            assert kept == bool(made), (tried[token], outcomes)
            found.acknowledged += bool(made)
            found.refused += not made
        assert set(tried) == set(results), "each change was heard of in the end"
        for name in (FULL, BARE):
            assert inline(store.status(name)).counter == expected[name]
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert database.execute("SELECT count(*) FROM op").fetchone() == (found.acknowledged,)
    database.close()
    return found


def test_programs_killed_at_random_lose_and_double_nothing(url: str, tmp_path: Path) -> None:
    """What was acknowledged is there, what was not is repeated with its token, and the counter is the sum."""
    assert tallied(url, tmp_path, programs=6, kills=12).acknowledged


@pytest.mark.parametrize("verb", ["add", "register"])
def test_program_killed_at_any_line_of_a_change(verb: str, tmp_path: Path) -> None:
    """Before the commit nothing was changed, after it all; a member's death is seen in both."""
    url = f"sqlite:{tmp_path / 'store.db'}"
    with inlined(url) as store:
        inline(store.create(FULL, None, 0))
    with Program("every_line", url, verb) as program:
        not_made, made = json.loads(program.hear())
    assert not_made > 20
    assert made > 2


# --- everybody's turn


def churned(url: str, programs: int, seconds: float) -> list[int]:
    """How often each of so many programs added and was done, in the same time."""
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(Program("churn", url, FULL, seconds)) for _ in range(programs)]
        for program in running:
            assert program.hear() == "!"
        for program in running:
            program.tell()
        return [int(program.hear()) for program in running]


def test_everybody_gets_his_turn(url: str) -> None:
    """The slowest changes at least a tenth of what the fastest does, and all is counted."""
    times = churned(url, 6, 0.3)
    assert min(times) >= max(times) / 10
    assert counter(url) == BASE


def opened_and_closed(url: str, programs: int, times: int) -> None:
    """Open the store, change it and close it, in many programs at a time."""
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(Program("short", url, FULL, times)) for _ in range(programs)]
        for program in running:
            assert program.hear() == "!"
        for program in running:
            program.tell()
        for program in running:
            program.finish()
    assert counter(url) == BASE + programs * times


def test_store_opened_and_closed_by_many_at_a_time(url: str) -> None:
    """Who closes it last puts its log away, while the next one opens it."""
    opened_and_closed(url, 4, 25)


# --- members


async def killed_while_awaited(url: str, rounds: int, most: int, seed: int = 0) -> int:
    """Kill members while somebody waits, in each round some of `most`, the others leave; how many were killed."""
    chance = random.Random(seed)
    killed = 0
    async with open_store(url) as store:
        for _ in range(rounds):
            with contextlib.ExitStack() as stack:
                running = [stack.enter_context(Program("members", url, BARE, f"w{n}")) for n in range(chance.randint(1, most))]
                for program in running:
                    assert program.hear() == "!"
                dying = set(chance.sample(running, chance.randint(1, len(running))))
                async with store.watch(BARE) as statuses:
                    assert (await anext(statuses)).counter == len(running)
                    for program in running:
                        if program in dying:
                            program.process.kill()
                        else:
                            program.tell()
                    while (status := await anext(statuses)).counter:
                        pass
                assert (status.lost, status.members) == (len(dying), ())
                killed += len(dying)
    return killed


async def test_lost_are_those_that_were_killed(url: str) -> None:
    """In each round, while others leave at the same time."""
    assert await killed_while_awaited(url, rounds=3, most=4)


async def test_killed_members_go_one_by_one_though_nobody_else_does_anything(url: str) -> None:
    """Who waits sees each of them go, by a death alone."""
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(Program("members", url, BARE, f"{n}a", f"{n}b")) for n in range(3)]
        for program in running:
            assert program.hear() == "!"
        async with open_store(url) as store, store.watch(BARE) as statuses:
            assert (await anext(statuses)).counter == 6
            for left, program in zip((4, 2, 0), running, strict=True):
                program.process.kill()
                status = await anext(statuses)
                assert (status.counter, status.lost) == (left, 6 - left)


# --- waiters


async def test_waiter_is_woken_though_the_writer_died_before_the_bell(url: str) -> None:
    """Between the commit and the bell: with trio and without."""
    with inlined(url) as store:
        inline(store.add(BARE, 1, False, None, None))
    with Program("unrung", url, BARE) as writer, Program("wait", url, BARE) as inline_waiter:
        assert (writer.hear(), inline_waiter.hear()) == ("!", "!")
        async with open_store(url) as trio_store, trio_store.watch(BARE) as statuses:
            assert (await anext(statuses)).counter == 1
            writer.tell()
            writer.dies()
            assert (await anext(statuses)).counter == 0
        assert inline_waiter.hear() == "0"


@pytest.mark.parametrize("at_once", [1, 60])
async def test_no_zero_is_missed_that_is_followed_by_an_add(url: str, at_once: int) -> None:
    """Sixty of them from another program: one after the other, and all before the waiter has seen the first."""
    with Program("cross", url, BARE) as program, inlined(url) as store:
        inline(store.add(BARE, 1, False, None, None))
        assert program.hear() == "!"
        async with open_store(url) as trio_store, trio_store.watch(BARE) as statuses:
            assert (await anext(statuses)).counter == 1
            for _ in range(60 // at_once):
                program.tell(at_once)
                zeros = 0
                while zeros < at_once:
                    zeros += not (await anext(statuses)).counter
        assert counter(url, BARE) == 1


# --- within the gate

AWAITED: Final[dict[str, Callable[[Store], Any]]] = {
    "add": lambda store: store.waitgroup(FULL).add(5),
    "status": lambda store: store.waitgroup(FULL).status(),
    "wait": lambda store: store.waitgroup(FULL).wait(),
    "list": lambda store: store.list(),
    "register": lambda store: store.register("presence", "p", "x", ""),
    "present": lambda store: store.present(),
}


@contextlib.asynccontextmanager
async def stopped_inside(url: str) -> AsyncGenerator[None]:
    """Another program is stopped within a change, for the time of the block, which must not wait for it."""
    with Program("inside", url, FULL, int(signal.SIGSTOP)) as program:
        program.stops()
        with trio.move_on_after(5.0) as limit:
            async with trio.open_nursery() as nursery:

                async def rescue() -> None:
                    try:
                        await trio.sleep_forever()
                    finally:
                        program.go_on()

                nursery.start_soon(rescue)
                yield
                nursery.cancel_scope.cancel()
        assert not limit.cancelled_caught, "the block has waited until the program went on"
        assert program.hear() == "!"


@pytest.mark.parametrize(("verb", "opened"), [*((verb, True) for verb in AWAITED), ("add", False), ("wait", False)])
async def test_call_that_is_behind_a_stopped_program_can_be_cancelled(url: str, verb: str, opened: bool) -> None:
    """What was cancelled is not made; when that program goes on, all goes on."""
    async with open_store(url) as store:
        if opened:
            await store.list()
        async with stopped_inside(url):
            with trio.move_on_after(0.05) as scope:
                await AWAITED[verb](store)
            assert scope.cancelled_caught
        assert (await store.waitgroup(FULL).status()).counter == BASE + 1
        assert await store.present() == ()


async def test_stream_that_is_behind_a_stopped_program_can_be_cancelled(url: str) -> None:
    """It goes through the gate, once a second, to look for the dead."""
    async with open_store(url) as store, store.watch(FULL) as statuses:
        await anext(statuses)
        async with stopped_inside(url):
            with trio.move_on_after(1.2) as scope:
                await anext(statuses)
            assert scope.cancelled_caught
        assert (await anext(statuses)).counter == BASE + 1


async def test_store_that_is_behind_a_stopped_program_can_be_closed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is closed later, when its thread has come through."""
    monkeypatch.setattr(threads, "CLOSE_WITHIN", 0.05)
    store = open_store(url)
    await store.register("presence", "p", "x", "")
    async with stopped_inside(url):
        await store.aclose()
    await store.aclose()


async def test_program_killed_within_a_change_holds_nobody_up(url: str) -> None:
    """Its change was not made, and the next one comes in."""
    async with open_store(url) as store:
        for number in range(10):
            with Program("inside", url, FULL, int(signal.SIGKILL)) as killed:
                killed.dies()
            await store.waitgroup(FULL).add()
            assert (await store.waitgroup(FULL).status()).counter == BASE + number + 1


# --- fork


@pytest.mark.parametrize("how", ["fork", "multiprocessing"])
def test_member_of_a_parent_lives_on_when_its_child_ends(url: str, how: str) -> None:
    """The child that has the parent's store is an owner of its own: its member alone is lost."""
    with Program("fork", url, BARE, how) as parent:
        parent.hear()
        with inlined(url) as store:
            before = inline(store.status(BARE))
            assert [entry.id for entry in before.members] == ["parent", "child"]
            assert len({entry.pid for entry in before.members}) == 2
            parent.ask("end")
            after = inline(store.status(BARE))
            assert ([entry.id for entry in after.members], after.lost) == (["parent"], 1)


@pytest.mark.parametrize("how", ["fork", "multiprocessing"])
def test_member_of_a_child_lives_on_when_its_parent_is_killed(url: str, how: str) -> None:
    """It neither holds on to its parent's life nor loses its own."""
    with Program("fork", url, BARE, how) as parent:
        child = int(parent.hear())
        parent.kill()
        with inlined(url) as store:
            status = inline(store.status(BARE))
            assert ([entry.id for entry in status.members], status.lost) == (["child"], 1)
            dead = os.pidfd_open(child)
            os.kill(child, signal.SIGKILL)
            assert select.select([dead], [], [], PATIENCE)[0]
            os.close(dead)
            status = inline(store.status(BARE))
            assert (status.counter, status.lost) == (0, 2)


def test_changes_of_a_child_are_kept_when_its_parent_closes_the_store(url: str) -> None:
    """SQLite shares what it knows of a file within a process, and a child has inherited that."""
    with Program("fork", url, BARE, "fork") as parent:
        parent.hear()
        parent.ask("child")
        parent.ask("close")
        parent.ask("child")
        assert counter(url, BARE) == 3, "the child's member, and two tickets"
        parent.ask("parent")
        parent.ask("child")
        assert counter(url, BARE) == 5
        parent.ask("end")
    assert counter(url, BARE) == 4
