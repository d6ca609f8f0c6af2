"""Programs that tests start, to kill, stop and fork them. `python -m tests.coordination.workers PROGRAM ARGUMENT...`.

They say "!" when they are where the test wants them, and those that read lines end with their input. Trio is imported only where it
is needed: most of them live for a tenth of a second.
"""

from __future__ import annotations

import fcntl
import functools
import itertools
import json
import os
import random
import select
import signal
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from types import FrameType
from typing import Any, Final, TypeAlias, TypeVar

from grouper.coordination.errors import Underflow
from grouper.coordination.opening import open_inline, open_store
from grouper.coordination.sqlite.gate import Gate
from grouper.coordination.sqlite.groups import add
from grouper.coordination.sqlite.store import InlineStore
from grouper.coordination.store import MEMBER

T = TypeVar("T")

Op: TypeAlias = tuple[str, str, str, int, str | None]
"""A token, "add", "issue" (tickets with ids) or "done", a group, how many, and which ticket."""

LIFE: Final = 60.0
"""Seconds after which a program ends that the test has forgotten."""

FULL, BARE = "full", "bare"
"""A group that never comes to zero, and one that always does."""


def inline(coroutine: Coroutine[Any, Any, T]) -> T:
    """Call a verb of an `InlineStore`, of which none awaits anything."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("it has awaited")


def opened(url: str) -> InlineStore:
    store = open_inline(url)
    assert store is not None
    return store


def say(text: object = "!") -> None:
    os.write(1, f"{text}\n".encode())


def lines() -> Iterator[str]:
    """What the test says, line by line, each when it is said."""
    while line := sys.stdin.readline():
        yield line.rstrip()


# --- changes that are written down


def make(store: InlineStore, op: Op) -> list[str] | bool | None:
    """Make a change; None if it was refused, which it may be where there is nothing to settle."""
    token, verb, group, n, ticket = op
    try:
        if verb == "done":
            return inline(store.done(group, n, ticket, token))
        return list(inline(store.add(group, n, verb == "issue", None, token)))
    except Underflow:
        return None


def invented(chance: random.Random, token: str, tickets: list[str]) -> Op:
    """Some change or other; takes the ticket that it settles."""
    kind = chance.randrange(8)
    if kind == 0:
        return token, "issue", FULL, 2, None
    if kind == 1 and tickets:
        return token, "done", FULL, 1, tickets.pop()
    if kind < 4:
        return token, chance.choice(("add", "done")), BARE, 1, None
    return token, chance.choice(("add", "done")), FULL, chance.randint(1, 3), None


def tally(url: str, ledger: str, seed: str, *unsettled: str) -> None:
    """Make changes until killed, each written to the ledger before it is made and after it; first those of somebody who is dead."""
    chance = random.Random(seed)
    store = opened(url)
    book = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    parent = os.getppid()
    tickets: list[str] = []

    def written(op: Op) -> None:
        os.write(book, (json.dumps(op) + "\n").encode())
        result = make(store, op)
        os.write(book, (json.dumps([op[0], result]) + "\n").encode())
        if op[1] == "issue" and result:
            tickets.extend(ticket for ticket in result if ticket not in tickets)  # type: ignore[union-attr]  # ids

    for text in unsettled:
        for _ in range(chance.randint(1, 2)):
            written(json.loads(text))
    for number in itertools.count():
        written(invented(chance, f"{seed}-{number}", tickets))
        if not number % 100:
            if os.getppid() != parent:
                return
            if chance.random() < 0.2:  # now and then as a command does, which closes after one verb
                inline(store.aclose())


def churn(url: str, name: str, seconds: str) -> None:
    """For so long, from the next line on: add, be done. Say how many times."""
    store = opened(url)
    inline(store.status(name))
    say()
    next(lines())
    end, n = time.monotonic() + float(seconds), 0
    while time.monotonic() < end:
        inline(store.add(name, 1, False, None, None))
        inline(store.done(name, 1, None, None))
        n += 1
    say(n)


def short(url: str, name: str, times: str) -> None:
    """So many times: open the store, add, close it, as that many commands would."""
    store = opened(url)
    say()
    next(lines())
    for _ in range(int(times)):
        inline(store.add(name, 1, False, None, None))
        inline(store.aclose())


# --- ends and pauses at chosen moments


def unrung(url: str, name: str) -> None:
    """Be done, and be killed between the commit and the bell."""

    def ring(self: Gate) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    store = opened(url)
    inline(store.status(name))
    say()
    next(lines())
    Gate.ring = ring  # type: ignore[method-assign]  # the moment that is wanted
    inline(store.done(name, 1, None, None))


def inside(url: str, name: str, number: str) -> None:
    """Add, and get a signal inside of the change, before its commit. Say so when it is made."""

    def change(db: Any) -> None:
        add(db, name, 1, False, None, None)
        os.kill(os.getpid(), int(number))

    store = opened(url)
    store._db.write(change)
    say()


def every_line(url: str, verb: str) -> None:
    """Have a child killed at each line that a change goes through; say how often the change had been made, and how often not.

    After each: an addition is repeated with its token, and is made once; a member is gone.
    """
    counts = [0, 0]
    for number in itertools.count(1):
        pid = os.fork()  # from here, where no store is open
        if not pid:
            killed_at(url, verb, number)
        _, status = os.waitpid(pid, 0)
        store = opened(url)
        if verb == "add":
            ((made,),) = sqlite3.connect(url.removeprefix("sqlite:")).execute(
                "SELECT count(*) FROM op WHERE token = ?", (str(number),)
            )
            for _ in range(2):
                inline(store.add(FULL, 1, False, None, str(number)))
            assert inline(store.status(FULL)).counter == number, (number, made)
        else:
            group = inline(store.status(FULL))
            made = group.lost
            assert (group.counter, made) in ((0, 0), (0, 1)), (number, group)
            inline(store.delete(FULL))
            inline(store.create(FULL, None, 0))
        inline(store.aclose())
        if not status:
            say(json.dumps(counts))
            return
        assert os.WTERMSIG(status) == signal.SIGKILL
        counts[made] += 1


def killed_at(url: str, verb: str, number: int) -> None:
    """Make a change, and be killed at its so manyth line."""
    left = number

    def trace(frame: FrameType, event: str, arg: object) -> Callable[..., Any] | None:
        nonlocal left
        if "coordination" not in frame.f_code.co_filename:
            return None
        if event == "line":
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    store = opened(url)
    inline(store.status(FULL))
    call = store.add(FULL, 1, False, None, str(number)) if verb == "add" else store.register(MEMBER, FULL, "w", "")
    sys.settrace(trace)
    inline(call)
    os._exit(0)


# --- members


def members(url: str, name: str, *ids: str) -> None:
    """Be so many members; leave at the next line. At the end of the input, end without leaving."""
    store = opened(url)
    entries = [inline(store.register(MEMBER, name, id, "")) for id in ids]
    say()
    for _ in lines():
        for entry in entries:
            inline(store.withdraw(MEMBER, entry))
        entries.clear()


def cross(url: str, name: str) -> None:
    """At each line: be done and add again, at once, so many times."""
    store = opened(url)
    inline(store.status(name))
    say()
    for line in lines():
        for _ in range(int(line)):
            inline(store.done(name, 1, None, None))
            inline(store.add(name, 1, False, None, None))


def wait(url: str, name: str) -> None:
    """Wait without trio, as the command does; say what was lost."""
    store = opened(url)

    async def waiting() -> int:
        async with store.watch(name) as statuses:
            async for status in statuses:
                if not status.counter:
                    return status.lost
                say()
        raise AssertionError

    say(inline(waiting()))


# --- fork


def fork(url: str, name: str, how: str) -> None:
    """Be a member, "parent", and have a child made by fork, with the same store, that is one too, "child". Say the child's pid.

    At the lines "parent" and "child" that process adds one; "close" closes the parent's store, "end" ends the child.
    """
    store = opened(url)
    inline(store.register(MEMBER, name, "parent", ""))
    orders, give_order = os.pipe()
    replies, reply = os.pipe()

    def child() -> None:
        inline(store.register(MEMBER, name, "child", ""))
        os.write(reply, b"!")
        while select.select([orders], [], [], LIFE)[0] and os.read(orders, 1) == b"+":
            inline(store.add(name, 1, False, None, None))
            os.write(reply, b"!")

    join: Callable[[], object]
    if how == "multiprocessing":
        import multiprocessing

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        pid, join = process.pid, process.join
    elif pid := os.fork():
        join = functools.partial(os.waitpid, pid, 0)
    else:
        child()
        os._exit(0)
    os.read(replies, 1)
    say(pid)
    for line in lines():
        if line == "parent":
            inline(store.add(name, 1, False, None, None))
        elif line == "child":
            os.write(give_order, b"+")
            os.read(replies, 1)
        elif line == "close":
            inline(store.aclose())
        else:
            os.write(give_order, b".")
            join()
        say()


# --- locks


async def hold(url: str, name: str, book: str, seed: str) -> None:
    """Take a lock again and again, and write down each time that it was got and released, with the fencing token.

    Beside the book is a file that only one process can lock at a time. By a POSIX lock: of a killed process the kernel takes
    those first, in the order of its descriptors, while a `flock` can outlive the byte that says that an owner lives.
    """
    import trio

    from grouper.coordination import Lock

    chance = random.Random(seed)
    store = open_store(url, lease=2.0)
    lock = Lock(store, name)
    pages = os.open(book, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    guard = os.open(book + "-guard", os.O_RDWR | os.O_CREAT)
    parent = os.getppid()

    def note(what: str, token: int) -> None:
        os.write(pages, f"{what} {token} {os.getpid()}\n".encode())

    async with store:
        while os.getppid() == parent:
            async with lock.hold() as token:
                try:
                    fcntl.lockf(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    note("two", token)
                    continue
                note("+", token)
                await trio.sleep(chance.choice((0, 0, 0, 0, 0, 0.001, 0.02)))
                note("-", token)
                fcntl.lockf(guard, fcntl.LOCK_UN)


async def grip(url: str, name: str) -> None:
    """Take a lock, say so, and keep it."""
    import trio

    from grouper.coordination import Lock

    async with open_store(url) as store, Lock(store, name).hold():
        say()
        await trio.sleep(LIFE)


class Guarded:
    """What a lock protects: it refuses a token that is older than the newest it has seen, and writes down how it was used."""

    def __init__(self, book: str) -> None:
        self._pages = os.open(book, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._newest = os.open(book + "-newest", os.O_RDWR | os.O_CREAT)

    def use(self, token: int) -> bool:
        """Use it; whether it let us."""
        fcntl.flock(self._newest, fcntl.LOCK_EX)
        newest = int(os.pread(self._newest, 20, 0) or b"0")
        os.write(self._pages, f"{'used' if token >= newest else 'refused'} {token} {os.getpid()}\n".encode())
        os.pwrite(self._newest, str(max(token, newest)).encode(), 0)
        fcntl.flock(self._newest, fcntl.LOCK_UN)
        return token >= newest


async def fence(url: str, name: str, book: str, seed: str) -> None:
    """As `hold`, where a holder that is paused can lose the lock."""
    import trio

    from grouper.coordination import Lock, LockLost, Unavailable

    chance = random.Random(seed)
    guarded = Guarded(book)
    store = open_store(url, lease=2.0)
    lock = Lock(store, name)
    parent = os.getppid()
    async with store:
        while os.getppid() == parent:
            try:
                async with lock.hold() as token:
                    guarded.use(token)
                    await trio.sleep(chance.choice((0, 0, 0.001)))
                    time.sleep(chance.choice((0, 0, 0.05)))  # noqa: ASYNC251 (a program that is at work)
                    guarded.use(token)
            except* (LockLost, Unavailable):
                pass


async def freeze(url: str, name: str, book: str) -> None:
    """Take a lock and use what it protects; do nothing at all until the next line; use it again. Say how that went."""
    from grouper.coordination import Lock, LockLost

    guarded = Guarded(book)
    try:
        async with Lock(open_store(url, lease=2.0), name).hold() as token:
            say(guarded.use(token))
            next(lines())
            say(guarded.use(token))
    except LockLost:
        say("lost")


PROGRAMS: Final[dict[str, Callable[..., None]]] = {
    program.__name__: program for program in (tally, churn, short, unrung, inside, every_line, members, cross, wait, fork)
}
WITH_TRIO: Final[dict[str, Callable[..., Awaitable[None]]]] = {program.__name__: program for program in (hold, grip, fence, freeze)}


def main(arguments: Sequence[str]) -> None:
    name, *rest = arguments
    if name in PROGRAMS:
        PROGRAMS[name](*rest)
        return
    import trio

    trio.run(WITH_TRIO[name], *rest)


if __name__ == "__main__":
    main(sys.argv[1:])
