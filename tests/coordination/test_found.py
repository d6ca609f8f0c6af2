"""What an attack on the store of one machine has found, each as a test."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from grouper.coordination import Deleted, InvalidName, Overflow, Unavailable, open_store
from grouper.coordination.errors import MOST
from grouper.coordination.opening import default_url, open_inline
from grouper.coordination.sqlite import database, entries, groups
from grouper.coordination.sqlite.database import Database
from grouper.coordination.sqlite.store import InlineStore, SQLiteStore

from .meeting import Meeting

real_time = pytest.mark.real_time


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "store.db")


@pytest.fixture
def db(path: str) -> Iterator[Database]:
    db = Database(path)
    db.write(groups.create, "batch", None, 1)
    yield db
    db.close()


async def test_zero_is_told_before_the_deletion(meeting: Meeting) -> None:
    """Two wait, and the first one to be woken deletes the group."""
    group = await meeting.group(count=1)
    async with group.watch() as statuses:
        assert (await anext(statuses)).counter == 1
        await group.done()
        await group.delete()
        assert (await anext(statuses)).counter == 0
        with pytest.raises(Deleted):
            await anext(statuses)


async def test_tickets_whose_time_runs_count_for_an_overflow(meeting: Meeting) -> None:
    """However many there are, beside those that just count."""
    group = await meeting.group()
    await group.add(MOST - 1, expires_in=600)
    await group.add()
    with pytest.raises(Overflow):
        await group.add()


@pytest.mark.parametrize("text", ["", "a\nb", "\udc80", "x" * 254])
async def test_token_that_nothing_can_keep_is_refused(meeting: Meeting, text: str) -> None:
    """Before the store is asked; the same for a ticket."""
    group = meeting.store.waitgroup("batch")
    with pytest.raises(InvalidName, match="token"):
        await group.add(token=text)
    with pytest.raises(InvalidName, match="ticket"):
        await group.done(ticket=text)


REPLACED = """
import os, sys
from grouper.coordination.sqlite import entries
from grouper.coordination.sqlite.database import Database
Database(sys.argv[1]).write(entries.register, "member", "batch", "w1", "")
os.execv(sys.executable, [sys.executable, "-c", "print('!', flush=True); input()"])
"""


@real_time
def test_program_that_became_another_owns_nothing(path: str, db: Database) -> None:
    """After exec it has the same pid and the same time of start, but nothing of what it was."""
    command = [sys.executable, "-c", REPLACED, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"!\n"
        status = db.write(groups.status, "batch")
        assert (status.members, status.lost) == ((), 1)
        process.communicate(b"\n")


def test_what_could_not_be_withdrawn_is_dead_when_the_store_is_closed(
    path: str, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process lives, but no longer for it."""
    other = Database(path)
    other.write(entries.register, "lock", "leader", "a", "")

    def fails(db: Database, owner: int) -> None:
        raise Unavailable("the disk is full")

    monkeypatch.setattr(database, "bury", fails)
    other.close()
    assert db.write(entries.living, "lock", "leader") == ()


def test_quick_change_is_not_made_in_a_file_that_was_replaced(path: str, db: Database) -> None:
    """Nobody would see it."""
    os.unlink(path)
    with pytest.raises(Unavailable, match="what was in it is gone"):
        db.write_if(None, groups.quick_add("batch", 1), groups.add, "batch", 1, False, None, None)


def test_change_whose_bell_fails_is_made(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """To say that it was not would have it made twice."""

    def fails() -> None:
        raise OSError

    monkeypatch.setattr(db.side, "ring", fails)
    db.write(groups.add, "batch", 5, False, None, None)
    assert db.write(groups.status, "batch").counter == 6


def test_two_names_of_one_file_are_one_store(tmp_path: Path, path: str, db: Database) -> None:
    """By a symbolic link it is the same; by a hard link it would not be, and is refused."""
    (tmp_path / "link.db").symlink_to(path)
    assert open_store(f"sqlite:{tmp_path}/link.db").url == open_store(f"sqlite:{path}").url
    db.close()
    os.link(path, tmp_path / "hard.db")
    with pytest.raises(Unavailable, match="hard link"):
        Database(str(tmp_path / "hard.db")).write(groups.status, "batch")
    os.unlink(tmp_path / "hard.db")


def test_user_without_a_home_names_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is called `~` would be another one in each folder."""
    monkeypatch.chdir(tmp_path)
    for variable in ("GROUPER_STORE", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os.path, "expanduser", str)
    with pytest.raises(Unavailable, match="GROUPER_STORE"):
        default_url()
    assert list(tmp_path.iterdir()) == []


@real_time
def test_deadline_holds_at_the_gate_too(path: str, db: Database) -> None:
    """Somebody was stopped inside."""
    store = open_inline(f"sqlite:{path}")
    assert store is not None
    store.deadline = time.monotonic() + 0.05
    gate = os.open(path + "-gate", os.O_RDWR)
    fcntl.flock(gate, fcntl.LOCK_EX)
    with pytest.raises(TimeoutError):
        store.status("batch").send(None)
    fcntl.flock(gate, fcntl.LOCK_UN)
    assert isinstance(store, InlineStore)
    store.deadline = time.monotonic() + 60
    with pytest.raises(StopIteration):
        store.status("batch").send(None)
    with pytest.raises(StopIteration):
        store.aclose().send(None)
    # not before: this process's other locks on the file go with any descriptor that is closed
    os.close(gate)


@real_time
def test_store_serves_another_run_after_a_call_was_given_up(path: str, db: Database) -> None:
    """The thread of the first run waits at the gate until the second one is under way."""
    store = SQLiteStore(path)
    group = store.waitgroup("batch")
    trio.run(group.status)

    async def give_up() -> None:
        with trio.move_on_after(0.05) as scope:
            await group.add(100)
        assert scope.cancelled_caught

    inside, leave = threading.Event(), threading.Event()

    def stay_inside() -> None:
        db.side.enter()
        inside.set()
        leave.wait()
        db.side.leave()

    thread = threading.Thread(target=stay_inside)
    thread.start()
    inside.wait()
    trio.run(give_up)

    async def add() -> None:
        async with store, trio.open_nursery() as nursery:
            nursery.start_soon(group.add, 5)
            leave.set()

    trio.run(add)
    thread.join()
    assert db.write(groups.status, "batch").counter == 6


def test_many_tickets_are_settled_in_one_go(db: Database) -> None:
    """Those that run out first, and a part of the last."""
    for expires_in in (30.0, 10.0, 20.0):
        db.write(groups.add, "batch", 10, False, expires_in, None)
    db.write(groups.done, "batch", 1 + 15, None, None)
    left = db.read(lambda db: db.execute("SELECT weight FROM ticket ORDER BY expires").fetchall())
    assert left == [(5,), (10,)]
    assert db.write(groups.status, "batch").counter == 15
