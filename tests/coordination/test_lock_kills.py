"""Locks of programs that are killed, paused and out of touch."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final, TypeAlias

import pytest
import trio

from grouper.coordination import Lock, open_store

from .etcd_server import Etcd
from .test_sqlite_kills import PATIENCE, Program, url

__all__ = ["url"]  # a fixture

pytestmark = pytest.mark.real_time

numbers: Final = itertools.count(1)

Line: TypeAlias = tuple[str, int, int]
"""What happened to a lock, the token, the pid."""


class Book:
    """What programs write down about a lock, read while they do."""

    def __init__(self, path: Path) -> None:
        path.touch()
        self._path = path
        self._place = 0

    def read(self) -> list[Line]:
        """The lines that are new."""
        with self._path.open("rb") as file:
            file.seek(self._place)
            *lines, rest = file.read().split(b"\n")  # a write that goes into another page can be seen in two parts
            self._place = file.tell() - len(rest)
        fields = [line.decode().split() for line in lines]
        return [(what, int(token), int(pid)) for what, token, pid in fields]


def handed_over(url: str, book: Path, programs: int, times: int, seed: int = 0) -> Counter[str]:
    """Have programs take a lock until it was taken so often; kill and pause some of them, holders too; how often what happened."""
    chance = random.Random(seed)
    happened: Counter[str] = Counter()
    killed: set[int] = set()
    reader = Book(book)

    with contextlib.ExitStack() as stack:

        def start() -> Program:
            happened["started"] += 1
            return stack.enter_context(Program("hold", url, "leader", book, happened["started"] + seed))

        running = [start() for _ in range(programs)]
        last: Line = ("", 0, 0)
        while happened["taken"] < times:
            time.sleep(chance.random() * 0.02)  # at any moment
            for line in reader.read():
                last = line
                happened["taken"] += line[0] == "+"
            if not last[1] or chance.random() > 0.3:
                continue
            holder = [place for place, program in enumerate(running) if last == ("+", last[1], program.pid)]
            place = holder[0] if holder and chance.random() < 0.8 else chance.randrange(programs)
            program = running[place]
            if chance.random() < 0.3:
                program.kill()
                killed.add(program.pid)
                happened["killed"] += 1
                running[place] = start()
            else:
                os.kill(program.pid, signal.SIGSTOP)
                time.sleep(chance.random() * 0.02)
                program.go_on()
                happened["paused"] += 1
        lines = Book(book).read()  # before the end of this block kills the others, one after the other

    newest, holder_pid = 0, 0
    for what, token, pid in lines:
        assert what != "two", f"{pid} got the lock with {token} while somebody else had it"
        if what == "-":
            assert (token, pid) == (newest, holder_pid)
            holder_pid = 0
            continue
        assert token > newest, "the token only rises"
        assert holder_pid in (0, *killed), f"{pid} got the lock from {holder_pid}, which lives and had not released it"
        happened["taken over"] += holder_pid != 0
        newest, holder_pid = token, pid
    return happened


def test_lock_never_has_two_holders(url: str, tmp_path: Path) -> None:
    """Who has it released it, or was killed, before the next one got it, with a higher token; pauses change nothing."""
    assert handed_over(url, tmp_path / "book", programs=3, times=60)["taken"]


async def test_lock_of_a_killed_holder_goes_to_one_of_those_that_wait(url: str) -> None:
    """To the first, and to nobody else as long as that one has it."""
    got: list[str] = []
    release, taken = trio.Event(), trio.Event()

    async def contend(name: str) -> None:
        async with open_store(url) as store, Lock(store, "leader").hold():
            got.append(name)
            taken.set()
            await release.wait()

    with Program("grip", url, "leader") as holder:
        assert holder.hear() == "!"
        async with open_store(url) as store, store.watch_entries("lock", "leader") as queue, trio.open_nursery() as nursery:
            for place, name in enumerate(("first", "second"), 1):
                while len(await anext(queue)) < place:
                    pass
                nursery.start_soon(contend, name)
            while len(await anext(queue)) < 3:
                pass
            holder.process.kill()
            await taken.wait()
            while len(await anext(queue)) > 2:
                pass
            assert got == ["first"]
            release.set()
    assert got == ["first", "second"]


# --- a store that takes the lock from a holder that is out of touch


@pytest.fixture
def remote(etcd: Etcd) -> str:
    """A store that can take a lock away."""
    return f"{etcd.url}/fencing-{os.getpid()}-{next(numbers)}"


def test_holder_that_was_out_of_touch_is_refused(remote: str, tmp_path: Path) -> None:
    """The next one got the lock meanwhile, with a higher token; the first learns that it has lost it, but after its next step."""
    book = tmp_path / "book"
    with Program("freeze", remote, "leader", book) as first:
        assert first.hear() == "True"
        with Program("freeze", remote, "leader", book) as second:
            assert second.hear() == "True"
            assert first.ask() == "False"
            assert first.hear() == "lost"
            assert second.ask() == "True"
            second.finish()
        first.finish()
    (_, old, _), (_, new, _), *_ = Book(book).read()
    assert old < new


@pytest.mark.soak
def test_no_old_token_is_accepted_in_a_thousand_hand_overs(remote: str, tmp_path: Path) -> None:
    """With holders killed and paused for so long that they lose the lock, and for less; only those that were paused are refused."""
    chance = random.Random(0)
    book = tmp_path / "book"
    happened: Counter[str] = Counter()
    paused: set[int] = set()

    with contextlib.ExitStack() as stack:

        def start() -> Program:
            happened["started"] += 1
            return stack.enter_context(Program("fence", remote, "leader", book, happened["started"]))

        running = [start() for _ in range(4)]
        reader = Book(book)
        newest = 0

        def read() -> int:
            """Who has got it last, since this was called before; else 0."""
            nonlocal newest
            user = 0
            for what, token, pid in reader.read():
                happened[what] += 1
                if what == "used" and token > newest:
                    newest, user = token, pid
                    happened["taken"] += 1
            return user

        def until_taken() -> int:
            end = time.monotonic() + PATIENCE
            while not (user := read()):
                assert time.monotonic() < end, "nobody gets the lock"
                time.sleep(0.001)
            return user

        while happened["taken"] < 1_000:
            for _ in range(chance.randrange(40)):
                until_taken()
            places = {program.pid: place for place, program in enumerate(running)}
            while (holder := until_taken()) not in places:  # it was killed after that
                pass
            place = places[holder]
            if chance.random() < 0.4:
                running[place].kill()
                running[place] = start()
                happened["killed"] += 1
                continue
            paused.add(holder)
            os.kill(holder, signal.SIGSTOP)
            if chance.random() < 0.6:
                until_taken()
                happened["lost"] += 1
            else:
                time.sleep(chance.random() / 10)
                happened["paused"] += 1
            running[place].go_on()

    newest, user = 0, 0
    for what, token, pid in Book(book).read():
        if what == "refused":
            assert token < newest
            assert pid in paused, f"{pid} had the lock, was not out of touch, and was refused"
            continue
        assert token >= newest
        assert token > newest or pid == user, f"{pid} and {user} have got {token}"
        newest, user = token, pid
    sys.stdout.write(f"\n{dict(happened)}\n")
    assert happened["refused"]
