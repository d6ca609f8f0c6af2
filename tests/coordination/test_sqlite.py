"""What is special to the store of one machine: its files, its gate, who is alive, and what can be wrong with a file."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from grouper.coordination import CoordinationError, MemberLost, MemoryStore, NotFound, Unavailable, open_store
from grouper.coordination.opening import default_url, open_inline
from grouper.coordination.sqlite import database as tables
from grouper.coordination.sqlite import entries, groups, hosts, waking
from grouper.coordination.sqlite.database import Database
from grouper.coordination.sqlite.gate import open_gate
from grouper.coordination.sqlite.store import SQLiteStore
from grouper.coordination.sqlite.waking import BlockingWaker

real_time = pytest.mark.real_time


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "store.db")


@pytest.fixture
def db(path: str) -> Iterator[Database]:
    db = Database(path)
    yield db
    db.close()


# --- the url


def test_store_of_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths are of the current folder, `~` is the user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert open_store("sqlite:store.db").url == f"sqlite:{tmp_path}/store.db"
    assert open_store("sqlite:~/store.db").url == "sqlite:/home/somebody/store.db"
    assert open_store("sqlite:/a/b?synchronous=full").url == "sqlite:/a/b?synchronous=full"


@pytest.mark.parametrize("url", ["", "store.db", "sqlite:", "sqlite:a?mode=ro", "redis://localhost"])
@pytest.mark.parametrize("opened", [open_store, open_inline])
def test_url_of_no_store_is_refused(url: str, opened: Callable[[str], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to write; an empty one is not taken for none."""
    with pytest.raises(ValueError, match="write sqlite:PATH"):
        opened(url)


def test_default_store_is_in_the_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XDG's, which is made for this user alone; GROUPER_STORE overrides it; a relative XDG_STATE_HOME is ignored."""
    monkeypatch.delenv("GROUPER_STORE", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert default_url() == f"sqlite:{tmp_path}/state/grouper/waitgroups.db"
    assert (tmp_path / "state" / "grouper").stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_store().url == f"sqlite:{tmp_path}/.local/state/grouper/waitgroups.db"
    monkeypatch.setenv("GROUPER_STORE", "sqlite:/a/b")
    assert open_store().url == "sqlite:/a/b"


def test_state_folder_that_cannot_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable that names another store."""
    (tmp_path / "file").touch()
    monkeypatch.delenv("GROUPER_STORE", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(Unavailable, match="GROUPER_STORE"):
        default_url()


def test_opening_touches_nothing(tmp_path: Path) -> None:
    """A store is opened when it is first used."""
    open_store(f"sqlite:{tmp_path}/store.db")
    assert list(tmp_path.iterdir()) == []


def test_inline_store_is_for_files_alone() -> None:
    """For etcd there is none: it needs an event loop."""
    assert open_inline("etcd://127.0.0.1:2379") is None


# --- what can be wrong with a file


def refused(path: str, match: str) -> None:
    with pytest.raises(Unavailable, match=match) as raised:
        Database(path).write(groups.create, "batch", None, 0)
    assert "\n" not in str(raised.value)
    assert path in str(raised.value)


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    """It is not made: a wrong path would be a store of its own."""
    refused(str(tmp_path / "no" / "store.db"), "folder .* is not there: make it")


def test_file_that_is_no_database(path: str) -> None:
    """It is left as it is."""
    Path(path).write_text("something of mine\n" * 100)
    refused(path, "it is no SQLite database: name another file")
    assert Path(path).read_text() == "something of mine\n" * 100


def test_database_of_another_program(path: str) -> None:
    """It is left as it is."""
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine (a)")
    other.close()
    refused(path, "database of another program")


def test_database_of_a_newer_version(path: str, db: Database) -> None:
    """It is left as it is."""
    db.write(groups.create, "batch", None, 0)
    db.close()
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 99")
    other.close()
    refused(path, "newer grouper")


def test_damaged_database(path: str, db: Database) -> None:
    """Told with what to do; nothing is written to it."""
    db.write(groups.create, "batch", None, 0)
    db.close()
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096 * 8)
    refused(path, "it is damaged: stop its users and move it away")


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    """As any file that cannot be opened."""
    (tmp_path / "store.db").mkdir()
    refused(str(tmp_path / "store.db"), "cannot be opened")


READ_ONLY = """
import encodings.idna, fcntl, os, sys
from grouper.coordination import Status, Unavailable
from grouper.coordination.sqlite import groups
from grouper.coordination.sqlite.database import Database
if os.getuid() == 0:  # root may write to anything
    os.setgid(65534); os.setuid(65534)
try:
    Database(sys.argv[1]).write(groups.status, "batch")
except Unavailable as error:
    print(error)
"""


@real_time
@pytest.mark.parametrize("what", ["file", "folder"])
def test_file_or_folder_that_is_read_only(what: str) -> None:
    """Also to ask for the status is a change: the dead are buried first."""
    tmp_path = Path(tempfile.mkdtemp())  # pytest's own is not to be entered by others
    os.chmod(tmp_path, 0o777)
    db = Database(str(tmp_path / "store.db"))
    db.write(groups.create, "batch", None, 0)
    db.close()
    os.chmod(tmp_path / "store.db", 0o444)
    os.chmod(tmp_path / "store.db-gate", 0o444 if what == "folder" else 0o666)
    if what == "folder":
        os.chmod(tmp_path, 0o555)
    told = subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(tmp_path / "store.db")], capture_output=True, text=True, check=True, timeout=60
    )
    os.chmod(tmp_path, 0o755)
    shutil.rmtree(tmp_path)
    assert told.stdout.count("\n") == 1, told
    assert "let this user write to it" in told.stdout


def test_network_file_systems_are_refused(tmp_path: Path) -> None:
    """The mounts of this process say what a folder is on."""
    device = os.stat(tmp_path).st_dev
    mounts = tmp_path / "mountinfo"
    line = f"36 35 {os.major(device)}:{os.minor(device)} / /data rw,noatime shared:1 - {{}} server:/data rw\n"
    mounts.write_text("25 1 0:99 / /other rw - nfs4 a:/b rw\n" + line.format("ext4"))
    hosts.require_local(str(tmp_path / "store.db"), str(mounts))
    mounts.write_text(line.format("nfs4"))
    with pytest.raises(Unavailable, match=r"network file system \(nfs4\).*local disk"):
        hosts.require_local(str(tmp_path / "store.db"), str(mounts))


@real_time
def test_file_that_another_program_keeps_locked(path: str, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody has it open in SQLite's shell."""
    monkeypatch.setattr(tables, "BUSY", 0.01)
    db.write(groups.create, "batch", None, 0)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="another program has kept it locked"):
        db.write(groups.add, "batch", 1, False, None, None)
    other.execute("ROLLBACK")
    other.close()
    db.write(groups.add, "batch", 1, False, None, None)


def test_store_that_was_removed_under_its_users(tmp_path: Path, db: Database) -> None:
    """Told once: who goes on with it would be alone with what is no longer the store."""
    db.write(groups.create, "batch", None, 0)
    (tmp_path / "store.db").unlink()
    with pytest.raises(Unavailable, match=r"removed.*what was in it is gone"):
        db.write(groups.status, "batch")
    assert db.write(groups.create, "batch", None, 0), "what is there now is another one"


def test_gate_that_was_removed_under_its_users(tmp_path: Path, path: str, db: Database, caplog: pytest.LogCaptureFixture) -> None:
    """All go to the new one, and nobody is taken for dead."""
    other = Database(path)
    db.write(groups.create, "batch", None, 0)
    db.write(entries.register, "member", "batch", "a", "")
    other.write(entries.register, "member", "batch", "b", "")
    (tmp_path / "store.db-gate").unlink()
    assert db.write(groups.status, "batch").counter == 2
    other.write(groups.add, "batch", 1, False, None, None)
    assert db.side is other.side
    assert db.side.is_claimed(db.owner or 0)
    assert db.side.is_claimed(other.owner or 0)
    assert caplog.text.count("store.db-gate was removed while programs used the store") == 2
    assert db.write(groups.status, "batch").counter == 3
    other.close()
    assert db.write(groups.status, "batch").lost == 1


@real_time
@pytest.mark.parametrize("made_anew", [True, False])
async def test_who_waits_hears_the_new_bell(path: str, made_anew: bool) -> None:
    """The old one is on a file that nobody rings any more."""
    async with SQLiteStore(path) as store, SQLiteStore(path) as other:
        group = store.waitgroup("batch")
        await group.create(count=2)
        async with group.watch() as statuses:
            await anext(statuses)
            os.unlink(path + "-gate")
            if made_anew:
                await other.waitgroup("batch").done()
                assert (await anext(statuses)).counter == 1
            with trio.move_on_after(0.05):
                await anext(statuses)
            await other.waitgroup("batch").done()
            assert (await anext(statuses)).counter == int(not made_anew)


def test_disk_that_is_full(db: Database) -> None:
    """The change is not made."""
    db.write(groups.create, "batch", None, 0)
    ((pages,),) = db.execute("PRAGMA page_count")
    db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Unavailable, match="the disk is full: make room"):
        db.write(groups.add, "batch", 50_000, True, None, None)
    db.execute("PRAGMA max_page_count = 1000000")
    assert db.write(groups.status, "batch").counter == 0


def test_unavailable_can_be_pickled() -> None:
    """With its token."""
    error = pickle.loads(pickle.dumps(Unavailable("gone", "t")))
    assert (str(error), error.token) == ("gone", "t")
    assert isinstance(error, CoordinationError)


# --- a change is made whole or not at all


def test_change_that_raises_was_not_made(db: Database) -> None:
    """Nor is its process an owner afterwards."""
    db.write(groups.create, "batch", None, 0)

    def change(db: Database) -> None:
        groups.add(db, "batch", 5, False, None, None)
        db.become_owner()
        raise LookupError

    with pytest.raises(LookupError):
        db.write(change)
    assert db.owner is None
    assert db.read(lambda db: db.execute("SELECT count(*) FROM owner").fetchone()) == (0,)
    assert db.write(groups.status, "batch").counter == 0


def test_power_cut_option_waits_for_the_disk(path: str) -> None:
    """As SQLite says; else only the file stays sound."""
    for full, expected in ((False, 1), (True, 2)):
        db = Database(path, full=full)
        assert db.write(lambda db: db.execute("PRAGMA synchronous").fetchone()) == (expected,)
        db.close()


def test_tokens_are_forgotten_after_ten_minutes(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """In passing, when another is kept."""
    now = 1000.0

    def clock(_: Database) -> float:
        return now

    monkeypatch.setattr(Database, "now", clock)
    db.write(groups.create, "batch", None, 0)
    db.write(groups.add, "batch", 1, False, None, "a")
    now += 599
    db.write(groups.add, "batch", 1, False, None, "a")
    assert db.write(groups.status, "batch").counter == 1
    now += 2
    db.write(groups.add, "batch", 1, False, None, "b")
    assert db.read(lambda db: db.execute("SELECT token FROM op").fetchall()) == [("b",)]
    db.write(groups.add, "batch", 1, False, None, "a")
    assert db.write(groups.status, "batch").counter == 3


def test_group_whose_time_is_over_is_removed_when_the_store_is_opened(path: str, db: Database) -> None:
    """Though nobody asks for it."""
    db.write(groups.create, "batch", 0.001, 0)
    db.write(groups.create, "other", None, 0)
    db.close()
    time.sleep(0.002)  # the ttl itself
    assert db.read(lambda db: db.execute("SELECT name FROM waitgroup").fetchall()) == [("other",)]


# --- the gate, and who is alive


@real_time
def test_gate_lets_one_in_at_a_time(path: str) -> None:
    """Also within one process."""
    gate = open_gate(path)
    inside, order = threading.Event(), list[str]()

    def other() -> None:
        inside.wait()
        gate.enter()
        order.append("other")
        gate.leave()

    thread = threading.Thread(target=other)
    thread.start()
    gate.enter()
    inside.set()
    order.append("first")
    gate.leave()
    thread.join()
    gate.close()
    assert order == ["first", "other"]


def test_process_has_one_gate_for_a_file(path: str) -> None:
    """To close another would drop its claims; the last one closes it."""
    one, two = open_gate(path), open_gate(path)
    assert one is two
    one.claim(7)
    one.close()
    assert two.is_claimed(7)
    two.close()
    three = open_gate(path)
    assert three is not two
    assert not three.is_claimed(7)
    three.close()


def test_store_closed_by_one_does_not_kill_what_another_owns(path: str) -> None:
    """Two handles of one process are two owners."""
    one, two = Database(path), Database(path)
    one.write(groups.create, "batch", None, 0)
    one.write(entries.register, "member", "batch", "a", "")
    two.write(entries.register, "member", "batch", "b", "")
    two.close()
    status = one.write(groups.status, "batch")
    assert ([member.id for member in status.members], status.lost) == (["a"], 1)
    one.close()


@real_time
def test_child_made_by_fork_is_a_process_of_its_own(path: str, db: Database) -> None:
    """What its parent owns lives on when the child ends, and the child's does not."""
    db.write(groups.create, "batch", None, 0)
    db.write(entries.register, "member", "batch", "parent", "")
    child = os.fork()
    if not child:
        try:
            db.write(entries.register, "member", "batch", "child", "")
            living = [member.id for member in db.write(groups.status, "batch").members]
            os._exit(0 if living == ["parent", "child"] else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    status = db.write(groups.status, "batch")
    assert ([member.id for member in status.members], status.lost) == (["parent"], 1)


def test_owner_whose_byte_is_free_but_whose_process_runs_is_alive() -> None:
    """As after the gate file was replaced: then its pid, start and boot speak for it."""
    _, pid, boot, ns, started = hosts.identity()
    assert hosts.runs(pid, boot, ns, started)
    assert not hosts.runs(pid, boot, ns, "1")
    assert not hosts.runs(pid, "another boot", ns, started)
    assert not hosts.runs(pid, boot, "another namespace", started)
    assert not hosts.runs(pid, boot, ns, "")


@real_time
def test_zombie_is_dead() -> None:
    """It is in the list of processes until its parent asks for it."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        _, _, boot, ns, _ = hosts.identity()
        started = hosts._started(process.pid)
        assert started is not None
        assert hosts.runs(process.pid, boot, ns, started)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not hosts.runs(process.pid, boot, ns, started)


STOPPED_INSIDE = """
import os, signal, sys
from grouper.coordination.sqlite.database import Database
def stop(db):
    print("!", end="", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
Database(sys.argv[1]).write(stop)
"""


@real_time
async def test_change_behind_a_stopped_writer_can_be_given_up(path: str) -> None:
    """It is not made then, also when the way is free again; the next call waits no longer than it must."""
    async with SQLiteStore(path) as store:
        group = store.waitgroup("batch")
        await group.create()
        async with trio.open_nursery() as nursery:
            run = partial(trio.run_process, [sys.executable, "-c", STOPPED_INSIDE, path], stdout=subprocess.PIPE)
            process: trio.Process = await nursery.start(run)
            assert process.stdout is not None
            await process.stdout.receive_some(1)
            await trio.to_thread.run_sync(os.waitid, os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            with trio.move_on_after(0.05) as scope:
                await group.add(5)
            assert scope.cancelled_caught
            os.kill(process.pid, signal.SIGCONT)
        assert (await group.status()).counter == 0


@real_time
async def test_change_that_has_begun_is_made_and_told(path: str) -> None:
    """A cancellation waits for it: who made an entry knows that it did."""
    async with SQLiteStore(path) as store:
        group = store.waitgroup("batch")
        await group.create()
        begun, go_on = threading.Event(), threading.Event()

        def change(db: Database) -> str:
            begun.set()
            assert go_on.wait(60)
            return "made"

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancels() -> None:
                    await trio.to_thread.run_sync(begun.wait)
                    scope.cancel()
                    await trio.lowlevel.cancel_shielded_checkpoint()
                    go_on.set()

                nursery.start_soon(cancels)
                assert await store._write(change) == "made"
                with pytest.raises(trio.Cancelled):
                    await trio.lowlevel.checkpoint()


# --- waking


@real_time
def test_writer_that_did_not_ring_is_seen_all_the_same(path: str, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it was killed between its commit and the bell."""
    monkeypatch.setattr(waking, "BACKSTOP", 0.05)
    store = open_inline(f"sqlite:{path}")
    assert store is not None
    store.deadline = time.monotonic() + 30
    db.write(groups.create, "batch", None, 1)

    async def waits() -> int:
        async with store.watch("batch") as statuses:
            assert (await anext(statuses)).counter == 1
            db.side.ring = lambda: None  # type: ignore[method-assign]  # a bell that is lost
            db.write(groups.done, "batch", 1, None, None)
            return (await anext(statuses)).counter

    with pytest.raises(StopIteration) as ended:
        waits().send(None)
    assert ended.value.value == 0


@real_time
@pytest.mark.parametrize("why", ["no extra", "another system"])
async def test_without_inotify_the_bell_is_looked_at(path: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No watch, no pidfd: everything comes, a little later."""
    if why == "no extra":
        monkeypatch.setitem(sys.modules, "inotify_simple", None)
    else:
        monkeypatch.setattr("grouper.coordination.sqlite.waking.sys.platform", "darwin")
    async with SQLiteStore(path) as store, SQLiteStore(path) as other:
        group = store.waitgroup("batch")
        await group.create(count=1)
        async with group.watch() as statuses:
            await anext(statuses)
            await other.waitgroup("batch").done()
            assert (await anext(statuses)).counter == 0


@real_time
def test_blocking_wait_ends_at_its_deadline(path: str) -> None:
    """With TimeoutError, at the time that the store's `deadline` says."""
    store = open_inline(f"sqlite:{path}")
    assert store is not None
    store.deadline = time.monotonic() + 0.05
    with pytest.raises(StopIteration):
        store.create("batch", None, 1).send(None)
    with pytest.raises(TimeoutError):
        store.waitgroup("batch").wait().send(None)
    with pytest.raises(StopIteration):
        store.aclose().send(None)


@real_time
def test_process_that_is_gone_already_ends_the_sleep_at_once(path: str) -> None:
    """There is nothing to get a descriptor of."""
    Path(path).touch()
    waker = BlockingWaker(path)
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    waker.heed([process.pid])
    with pytest.raises(StopIteration) as ended:
        waker.sleep(60).send(None)
    assert ended.value.value is True
    waker.close()


@real_time
def test_more_processes_than_descriptors_are_left_to_the_clock(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are heeded no more give theirs back."""
    monkeypatch.setattr(waking, "MOST", 1)
    Path(path).touch()
    waker = BlockingWaker(path)
    waker.heed([os.getpid(), os.getppid()])
    assert len(waker.ears.pids) == 1
    waker.heed([])
    assert waker.ears.pids == {}
    waker.close()


# --- in memory


async def test_machines_in_memory_are_apart() -> None:
    """Each `MemoryStore()` is one; its processes share it."""
    store = MemoryStore()
    await store.waitgroup("batch").create()
    assert (await store.process().waitgroup("batch").status()).counter == 0
    with pytest.raises(NotFound):
        await MemoryStore().waitgroup("batch").status()


async def test_process_that_dies_is_told_that_it_lost_what_it_had() -> None:
    """Its own member's block is cancelled; what it does next is new."""
    store = MemoryStore()
    group = store.waitgroup("batch")
    await group.create()
    with pytest.raises(MemberLost):
        async with group.member("w1"):
            store.die()
            await trio.sleep_forever()
    status = await group.status()
    assert (status.counter, status.lost) == (0, 1)
    async with group.member("w1"):
        assert (await group.status()).counter == 1


async def test_time_in_memory_is_trios() -> None:
    """A test with the mock clock waits for nothing."""
    store = MemoryStore()
    group = store.waitgroup("batch")
    await group.create(ttl=3600)
    async with group.watch() as statuses:
        began = trio.current_time()
        assert (await anext(statuses)).created == began
        with pytest.raises(CoordinationError):
            await anext(statuses)
        assert trio.current_time() - began == 3600


def test_stores_say_what_they_are(path: str) -> None:
    """In a log one sees which."""
    assert repr(open_store(f"sqlite:{path}")) == f"<SQLiteStore sqlite:{path}>"
    assert repr(MemoryStore()) == "<MemoryStore memory:>"
    assert repr(MemoryStore().waitgroup("batch")) == "<WaitGroup 'batch' in memory:>"
