"""A running tree as values, as JSON and as text, and the report of those that ignore their kill."""

from __future__ import annotations

import functools
import gc
import importlib
import io
import json
import logging
import math
import re
import signal
import sys
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import grouper
from grouper import (
    Backoff,
    Dynamic,
    ErrorTrace,
    Exit,
    Member,
    Ordered,
    Parallel,
    Process,
    Proxy,
    Restart,
    Restarter,
    RestartLimitExceeded,
    Role,
    Signals,
    Snapshot,
    State,
    StopTimeout,
    Strategy,
    Unstopped,
)
from grouper.snapshot import kind_of, lasting, one_line, plain
from tests.groups.members import fails_later, never_ready, service, watched

SLOWLY = Restart(backoff=Backoff(4, jitter=0))
Status = trio.TaskStatus[Any]


async def stubborn(signals: Signals, /, *, task_status: Status) -> None:
    """Ignores its kill for 7 seconds."""
    task_status.started()
    with trio.CancelScope(shield=True):
        await trio.sleep(7)


async def lingers(signals: Signals, /, *, task_status: Status) -> None:
    """Takes 3 seconds to stop."""
    task_status.started()
    await signals.wait()
    await trio.sleep(3)


class Server:
    """A runner with a value that JSON has not."""

    async def run(self, signals: Signals, /, *, task_status: Status) -> None:
        task_status.started({80})
        await signals.wait()


async def never_again(runner: object, error: Exception | None) -> None:
    """What a Restarter asks."""


class Hostile:
    """A value that cannot be shown."""

    def __repr__(self) -> str:
        raise OSError("no")


def at(snapshot: Snapshot, path: str) -> Snapshot:
    (found,) = [each for each in snapshot.walk() if each.path == path]
    return found


def nested(depth: int, innermost: Any = service) -> Ordered:
    """A chain of groups, one in the other."""
    group = Ordered([("leaf", innermost)])
    for _ in range(depth - 1):
        group = Ordered([("g", group)])
    return group


# Facts


async def test_facts_of_a_member(autojump_clock: MockClock) -> None:
    """What there is to know of a member that runs."""
    async with grouper.invoke(Ordered([("web", Ordered([Member("api", service, role=Role.OPTIONAL)]))])) as root:
        begun = trio.current_time()
        await trio.sleep(3)
        api = at(root.snapshot(), "web/api")
    assert (api.name, api.path, api.kind, api.role, api.state) == ("api", "web/api", "service", Role.OPTIONAL, State.READY)
    assert (api.since, api.taken_at, api.seconds) == (begun, begun + 3, 3)
    assert (api.restarts, api.last_error, api.value, api.restart_at, api.children) == (0, None, "up", None, ())


async def test_it_is_of_the_moment_in_which_it_was_taken() -> None:
    """What happens afterwards changes nothing in it."""
    async with grouper.invoke(Ordered([("a", service)])) as root:
        before = root.snapshot()
        await root.stop("a")
        after = root.snapshot()
    assert (at(before, "a").state, at(after, "a").state) == (State.READY, State.STOPPED)


async def test_it_is_frozen() -> None:
    """It is a value."""
    async with grouper.invoke(Ordered([("a", service)])) as root:
        snapshot = root.snapshot()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        snapshot.name = "b"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


async def test_it_holds_nothing_that_runs() -> None:
    """A snapshot that is kept keeps no process alive."""
    async with grouper.invoke(Ordered([("a", service)])) as root:
        snapshot = root.snapshot()
        fields = [getattr(each, field.name) for each in snapshot.walk() for field in attrs.fields(Snapshot)]
        assert not [each for each in fields if isinstance(each, Process | BaseException)]


async def test_repr_is_of_one() -> None:
    """How many are beneath it, not which; a value that cannot be shown does no harm."""

    async def hostile(signals: Signals, /, *, task_status: Status) -> None:
        task_status.started(Hostile())
        await signals.wait()

    async with grouper.invoke(Ordered([("a", hostile)])) as root:
        snapshot = root.snapshot()
    assert "children=<1 members>" in repr(snapshot)
    assert "value=<Hostile that cannot be shown>" in repr(snapshot.children[0])


async def test_paths_are_the_processes() -> None:
    """They are relative to the root of the whole tree, whose own is empty, wherever the snapshot begins."""
    async with grouper.invoke(Ordered([("web", Parallel([("api", service), ("ui", service)]))])) as root:
        whole, part = root.snapshot(), root["web"].snapshot()
    assert [each.path for each in whole.walk()] == ["", "web", "web/api", "web/ui"]
    assert [each.path for each in part.walk()] == ["web", "web/api", "web/ui"]


async def test_every_node_is_a_snapshot() -> None:
    """So each says when it was taken: all at once."""
    async with grouper.invoke(Ordered([("web", Ordered([("api", service)]))])) as root:
        now = trio.current_time()
        assert {each.taken_at for each in root.snapshot().walk()} == {now}


async def test_walk_is_in_start_order() -> None:
    """Each before its children, which come before what is next to it."""
    root_group = Ordered([("a", Ordered([("x", service), ("y", service)])), ("b", service), ("c", Parallel([("z", service)]))])
    async with grouper.invoke(root_group) as root:
        assert [each.path for each in root.snapshot().walk()] == ["", "a", "a/x", "a/y", "b", "c", "c/z"]


async def test_one_that_is_no_group_is_alone() -> None:
    """A plain runner at the root has a snapshot too."""
    async with grouper.invoke(service) as root:
        snapshot = root.snapshot()
    assert (snapshot.path, snapshot.kind, snapshot.children) == ("", "service", ())


async def test_after_the_end_it_tells_how_it_ended() -> None:
    """The members of a group that has ended are still there."""
    async with watched(Ordered([("a", fails_later)])) as root:
        await root.wait()
        snapshot = root.snapshot()
    assert [each.state for each in snapshot.walk()] == [State.EXITED, State.EXITED]
    assert at(snapshot, "a").last_error == "OSError: gone"


def test_after_the_run_it_can_still_be_taken(mock_clock: MockClock) -> None:
    """Where there is no clock any more it was taken at the end."""
    kept: list[Process] = []

    async def main() -> None:
        async with grouper.invoke(Ordered([("a", service)])) as root:
            kept.append(root)

    trio.run(main, clock=mock_clock)
    (root,) = kept
    assert [each.state for each in root.snapshot().walk()] == [State.EXITED, State.EXITED]
    assert root.snapshot().taken_at == root.ended_at


@pytest.mark.real_time
async def test_in_another_thread_it_is_taken_through_trio() -> None:
    """Without, it might be half of before and half of after: that is an error."""
    async with grouper.invoke(Ordered([("a", service)])) as root:
        snapshot = await trio.to_thread.run_sync(functools.partial(trio.from_thread.run_sync, root.snapshot))
        assert at(snapshot, "a").state is State.READY

        def by_itself() -> None:
            with pytest.raises(RuntimeError):
                root.snapshot()

        await trio.to_thread.run_sync(by_itself)


# Kinds


@pytest.mark.parametrize(
    ("runner", "kind"),
    [
        (service, "service"),
        (Server(), "Server"),
        (Server().run, "Server.run"),
        (functools.partial(service), "service"),
        (Ordered([]), "Ordered"),
        (Dynamic(), "Dynamic"),
        (Proxy(Signals(), Server()), "Server"),
        (Member("inner", Proxy(Signals(), Parallel([]))), "Parallel"),
        (Restarter(Server(), never_again), "Server"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_kind_is_the_innermost_runners(runner: object, kind: str) -> None:
    """A class's or a function's name, through all that wraps it."""
    assert kind_of(runner) == kind


def test_kind_ends_where_a_wrapper_stands_on_itself() -> None:
    """It is called what it is."""

    class Circle:
        @property
        def runner(self) -> Circle:
            return self

    assert kind_of(Circle()).endswith("Circle")


# States


async def test_waiting_and_starting() -> None:
    """One that starts, and one that waits for it, which has never been in another state."""
    async with grouper.background(Ordered([("a", never_ready), ("b", service)])) as root:
        await wait_all_tasks_blocked()
        a, b = root.snapshot().children
        assert (a.state, b.state, b.since, b.seconds) == (State.STARTING, State.WAITING, None, None)
        assert b.value is None
        root.signal(signal.SIGTERM)


async def test_backoff_tells_when_it_comes_again(autojump_clock: MockClock) -> None:
    """The delay of its policy after its end; once it has come there is nothing to tell."""
    async with watched(Ordered([Member("a", fails_later, restart=SLOWLY)])) as root:
        begun = trio.current_time()
        await trio.sleep(3)
        (a,) = root.snapshot().children
        assert (a.state, a.since, a.restart_at, a.restarts) == (State.BACKOFF, begun + 1, begun + 5, 0)
        assert a.last_error == "OSError: gone"
        await trio.sleep(2.5)
        (a,) = root.snapshot().children
        assert (a.state, a.restart_at, a.restarts) == (State.READY, None, 1)
        assert a.last_error == "OSError: gone"


async def test_with_a_strategy_all_that_come_again_say_when(autojump_clock: MockClock) -> None:
    """It is the group's delay."""
    group = Ordered(
        [Member("a", fails_later, restart=Restart()), ("b", service)], strategy=Strategy.ALL, restart=SLOWLY, cancel_grace=1
    )
    async with grouper.invoke(group) as root:
        begun = trio.current_time()
        await trio.sleep(2)
        snapshot = root.snapshot()
    assert [(each.state, each.restart_at) for each in snapshot.children] == [(State.BACKOFF, begun + 5)] * 2


async def test_exhausted() -> None:
    """Past its limit of restarts."""
    group = Ordered([Member("a", fails_later, role=Role.OPTIONAL, restart=Restart(limit=0)), ("b", service)])
    async with grouper.invoke(group) as root:
        await root["a"].wait()
        a = at(root.snapshot(), "a")
    assert a.state is State.EXHAUSTED
    assert (a.last_error or "").startswith(f"{RestartLimitExceeded.__qualname__}: ")


async def test_stopped_by_hand() -> None:
    """And started again: one restart."""
    async with grouper.invoke(Ordered([("a", service)])) as root:
        await root.stop("a")
        (a,) = root.snapshot().children
        assert (a.state, a.restarts) == (State.STOPPED, 0)
        await root.start("a")
        (a,) = root.snapshot().children
        assert (a.state, a.restarts) == (State.READY, 1)


async def test_draining_and_stopping(autojump_clock: MockClock) -> None:
    """What it was told last, and how long ago."""

    async def worker(signals: Signals, /, *, task_status: Status) -> None:
        task_status.started()
        async for number in signals:
            if number == signal.SIGTERM:
                await trio.sleep(3)
                return

    group = Ordered([("a", worker)], drain_signal=signal.SIGUSR1, drain_within=5)
    async with grouper.background(group) as root:
        await root.wait_ready()
        root.signal(signal.SIGTERM)
        await trio.sleep(4)
        (a,) = root.snapshot().children
        assert (a.state, a.seconds) == (State.DRAINING, 4)
        await trio.sleep(2)
        (a,) = root.snapshot().children
        assert (a.state, a.seconds) == (State.STOPPING, 1)


async def test_dynamic_shows_those_that_run() -> None:
    """In the order in which they came; the ended are gone."""
    group = Dynamic()
    client = group.client()
    async with grouper.invoke(Ordered([("pool", group)])) as root:
        for name in "abc":
            await client.insert((name, service))
        await client.remove("b")
        pool = at(root.snapshot(), "pool")
    assert (pool.kind, [each.path for each in pool.children]) == ("Dynamic", ["pool/a", "pool/c"])


# Errors and values


def traced(error: Exception) -> ErrorTrace:
    exit = Exit(path="web", error=error, was_ready=True, killed=False, started_at=0.0, ended_at=1.0)
    return ErrorTrace("1 of 1 members failed", [error], exits=[exit])


def given_up(cause: Exception) -> RestartLimitExceeded:
    error = RestartLimitExceeded("enough")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError("gone"), "OSError: gone"),
        (OSError("two\n  lines"), "OSError: two lines"),
        (ValueError(), "ValueError"),
        (ExceptionGroup("many", [OSError("gone")]), "ExceptionGroup: many"),
        (ErrorTrace("1 of 2 members failed", [OSError("gone")]), "ErrorTrace: 1 of 2 members failed"),
        (traced(OSError("gone")), "ErrorTrace: 1 of 1 members failed, first OSError: gone"),
        (given_up(OSError("gone")), "RestartLimitExceeded: enough (from OSError: gone)"),
        (
            traced(given_up(OSError("gone"))),
            "ErrorTrace: 1 of 1 members failed, first RestartLimitExceeded: enough (from OSError: gone)",
        ),
    ],
    ids=["one line", "two lines", "no text", "group", "trace", "trace with exits", "given up", "trace of who gave up"],
)
def test_error_is_one_line(error: Exception, text: str) -> None:
    """Its type and its text; of a trace also what came first, of who gave up also why."""
    assert one_line(error) == text


def test_long_error_is_cut() -> None:
    """A line that can be read."""
    text = one_line(OSError("x" * 10_000_000))
    assert text == f"OSError: {'x' * 197}..."


def test_error_that_cannot_be_shown_has_its_name() -> None:
    """A snapshot does not fail for what others have made."""

    class BadError(Exception):
        def __str__(self) -> str:
            raise OSError("no")

    assert one_line(BadError()).endswith("BadError: <it cannot be shown>")


@pytest.mark.parametrize("value", [None, True, 7, 1.5, "text"])
def test_simple_values_are_json_as_they_are(value: object) -> None:
    """None, truth, numbers, text."""
    assert plain(value) is value


@pytest.mark.parametrize(
    ("value", "text"),
    [({80}, "{80}"), ([1], "[1]"), (math.inf, "inf"), (b"x", "b'x'"), (Hostile(), "<Hostile that cannot be shown>")],
)
def test_other_values_are_told_by_their_repr(value: object, text: str) -> None:
    """Also numbers that JSON has not, and what has no repr."""
    assert plain(value) == text


async def test_value_is_the_object() -> None:
    """It is for the program; JSON has its repr."""
    async with grouper.invoke(Ordered([("a", Server())])) as root:
        snapshot = root.snapshot()
        assert snapshot.children[0].value is root["a"].value
    assert snapshot.as_dicts()[1]["value"] == "{80}"


# JSON


async def test_dicts_are_json(autojump_clock: MockClock) -> None:
    """One for each member, parents first, with its path and depth; nothing is lost on the way."""
    async with grouper.invoke(Ordered([("web", Ordered([("api", service)]))])) as root:
        begun = trio.current_time()
        await trio.sleep(2)
        dicts = root.snapshot().as_dicts()
    assert json.loads(json.dumps(dicts, allow_nan=False)) == dicts
    assert [(each["path"], each["depth"]) for each in dicts] == [("", 0), ("web", 1), ("web/api", 2)]
    assert dicts[2] == {
        "path": "web/api",
        "name": "api",
        "depth": 2,
        "kind": "service",
        "role": "service",
        "state": "ready",
        "since": begun,
        "seconds": 2.0,
        "restarts": 0,
        "last_error": None,
        "value": "up",
        "restart_at": None,
        "stack": None,
        "taken_at": begun + 2,
    }


# Size


async def test_deep_tree() -> None:
    """500 groups deep: taken, walked, shown, and forgotten, without recursion."""
    async with grouper.invoke(nested(500)) as root:
        snapshot = root.snapshot()
        assert sum(1 for _ in snapshot.walk()) == 501
        assert json.loads(json.dumps(snapshot.as_dicts()))[-1]["path"] == "/".join(["g"] * 499 + ["leaf"])
        assert len(snapshot.render().splitlines()) == 501
        assert len(repr(snapshot)) < 1000
        assert snapshot != root.snapshot()
        assert hash(snapshot) != hash(root.snapshot())
        assert snapshot.unstopped == ()
    del snapshot
    gc.collect()


async def test_many_members() -> None:
    """10,000, each with its own facts."""
    half = Parallel([(f"m{number}", service) for number in range(5000)])
    group = Parallel([("web", half), ("db", half)])
    async with grouper.invoke(group) as root:
        snapshot = root.snapshot()
    assert [each.path for each in snapshot.walk()] == [
        "",
        *("web", *(f"web/m{number}" for number in range(5000))),
        *("db", *(f"db/m{number}" for number in range(5000))),
    ]
    assert all(each.state is State.READY for each in snapshot.walk())


# Text


async def test_text(autojump_clock: MockClock) -> None:
    """An indented tree: name, state, for how long, kind, and what there is to tell."""
    group = Ordered(
        [
            ("db", Server()),
            Member("cache", fails_later, restart=Restart(backoff=Backoff(0.75, jitter=0))),
            ("web", Parallel([("api", service), ("worker", Server())])),
        ]
    )
    async with grouper.invoke(group) as root:
        await trio.sleep(1.25)
        text = root.snapshot().render(color=False)
    assert text.splitlines() == [
        "root        ready         1.2 s  Ordered",
        "  db        ready         1.2 s  Server",
        "  cache     backoff       0.2 s  fails_later, next in 0.5 s, last error OSError: gone",
        "  web       ready         1.2 s  Parallel",
        "    api     ready         1.2 s  service",
        "    worker  ready         1.2 s  Server",
    ]


async def test_text_of_ends(autojump_clock: MockClock) -> None:
    """What has ended tells how, and how long ago."""
    group = Parallel([Member("a", fails_later, role=Role.OPTIONAL), ("b", service), ("c", service)])
    async with grouper.invoke(group) as root:
        await trio.sleep(61)
        await root.stop("b")
        text = root.snapshot().render(color=False)
    assert text.splitlines() == [
        "root  ready          1m1s  Parallel",
        "  a   exited         1m0s  fails_later, last error OSError: gone",
        "  b   stopped       0.0 s  service",
        "  c   ready          1m1s  service",
    ]


async def test_text_of_restarts(autojump_clock: MockClock) -> None:
    """Their number, and when the next is."""
    policy = Restart(backoff=Backoff(1, jitter=0, factor=1))
    async with watched(Ordered([Member("a", fails_later, restart=policy)])) as root:
        lines: list[str] = []
        for _ in range(3):
            await trio.sleep(1.5)
            lines.append(root.snapshot().render(color=False).splitlines()[1])
            await trio.sleep(0.5)
    assert lines == [
        "  a   backoff       0.5 s  fails_later, next in 0.5 s, last error OSError: gone",
        "  a   backoff       0.5 s  fails_later, 1 restart, next in 0.5 s, last error OSError: gone",
        "  a   backoff       0.5 s  fails_later, 2 restarts, next in 0.5 s, last error OSError: gone",
    ]


async def test_text_of_a_restart_that_is_due(autojump_clock: MockClock) -> None:
    """It waits for those that are still stopping."""
    group = Ordered(
        [Member("a", fails_later, restart=Restart()), ("b", lingers)],
        strategy=Strategy.ALL,
        restart=Restart(backoff=Backoff(0.5, jitter=0)),
    )
    async with grouper.invoke(group) as root:
        await trio.sleep(3)
        lines = root.snapshot().render(color=False).splitlines()
    assert lines[1:] == [
        "  a   backoff       2.0 s  fails_later, next due, last error OSError: gone",
        "  b   stopping      2.0 s  lingers",
    ]


async def test_text_of_one_that_waits_has_no_time() -> None:
    """It has never changed its state."""
    async with grouper.background(Ordered([("a", never_ready), ("b", service)])) as root:
        await wait_all_tasks_blocked()
        assert root.snapshot().render(color=False).splitlines()[2] == "  b   waiting              service"
        root.signal(signal.SIGTERM)


async def test_text_of_a_part_begins_with_its_path() -> None:
    """It tells where in the tree it is."""
    async with grouper.invoke(Ordered([("web", Ordered([("api", Ordered([("x", service)]))]))])) as root:
        text = root["web/api"].snapshot().render(color=False)
    assert [line.split()[0] for line in text.splitlines()] == ["web/api", "x"]


async def test_long_name_pushes_its_own_line_alone() -> None:
    """The others stay where they can be read."""
    async with grouper.invoke(Parallel([("x" * 60, service), ("y", service)])) as root:
        lines = root.snapshot().render(color=False).splitlines()
    assert [line.index("ready") for line in lines] == [42, 64, 42]


async def test_text_has_nothing_that_a_terminal_acts_on() -> None:
    """What others have written is shown, not obeyed."""

    async def fails(signals: Signals, /, *, task_status: Status) -> None:
        task_status.started()
        raise OSError("\x1b[2J\x07é")

    async with grouper.invoke(Parallel([Member("a\x1b]0;", fails, role=Role.OPTIONAL), ("b", service)])) as root:
        await root["a\x1b]0;"].wait()
        text = root.snapshot().render(color=False)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert r"  a\x1b]0;" in text
    assert r"OSError: \x1b[2J\x07é" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.3, "0.3 s"),
        (0.1 + 0.2, "0.3 s"),
        (9.99, "9.9 s"),
        (59.99, "59.9 s"),
        (60, "1m0s"),
        (312.9, "5m12s"),
        (3600, "1h0m"),
        (7500, "2h5m"),
        (86400 * 2 + 3600 * 3, "2d3h"),
    ],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    """Two units at most, never more than has passed."""
    assert lasting(seconds) == text


# Colours

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


async def some_tree() -> Snapshot:
    async with grouper.invoke(Ordered([("a", service), Member("b", fails_later, role=Role.OPTIONAL)])) as root:
        await root["b"].wait()
        return root.snapshot()


async def test_colours_change_nothing_else() -> None:
    """Without them it is the plain text."""
    snapshot = await some_tree()
    coloured, plain_text = snapshot.render(color=True), snapshot.render(color=False)
    assert "\x1b[32mready" in coloured
    assert "\x1b[31mOSError: gone\x1b[0m" in coloured
    assert ESCAPES.sub("", coloured) == plain_text


async def test_without_rich_it_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra."""
    for name in [name for name in sys.modules if name.split(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
    snapshot = await some_tree()
    assert snapshot.render(color=True) == snapshot.render(color=False)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("output", "environment", "is_coloured"),
    [
        (Terminal(), {"TERM": "xterm-256color"}, True),
        (Terminal(), {"TERM": "xterm-256color", "NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {"TERM": "xterm-256color"}, False),
        (None, {}, False),
    ],
    ids=["terminal", "NO_COLOR", "dumb", "file", "closed"],
)
async def test_by_itself_it_is_coloured_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, output: io.StringIO | None, environment: dict[str, str], is_coloured: bool
) -> None:
    """That wants it."""
    for name in ("TERM", "NO_COLOR", "FORCE_COLOR", "COLORTERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    snapshot = await some_tree()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", output)
        text = snapshot.render()
    assert ("\x1b" in text) is is_coloured


# Unstopped


def hanging(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if "ignores its kill" in record.getMessage()]


async def test_unstopped_are_those_that_ignore_their_kill(autojump_clock: MockClock) -> None:
    """From 2 s after it on, until they end; of a group only the innermost; told at any depth."""
    tree = Ordered([("web", Ordered([("api", stubborn), ("ui", service)])), ("db", service)])
    seen: list[list[Unstopped]] = []
    async with watched(tree) as root:
        root.kill()
        for seconds in (1.5, 1, 2):
            await trio.sleep(seconds)
            snapshot = root.snapshot()
            assert snapshot.unstopped == at(snapshot, "web").unstopped == at(snapshot, "web/api").unstopped
            seen.append(list(snapshot.unstopped))
            assert snapshot.children[1].unstopped == ()
        await trio.sleep(5)
        assert root.snapshot().unstopped == ()
    assert [[(each.path, each.seconds) for each in those] for those in seen] == [[], [("web/api", 2.5)], [("web/api", 4.5)]]


async def test_unstopped_tells_where_it_sits(autojump_clock: MockClock) -> None:
    """The stack of its task, also in JSON, and a remark in the text of the tree."""
    async with watched(Ordered([("a", stubborn)])) as root:
        root.kill()
        await trio.sleep(3)
        snapshot = root.snapshot()
        (late,) = snapshot.unstopped
    assert "await trio.sleep(7)" in late.stack
    assert late.stack == snapshot.as_dicts()[1]["stack"]
    assert "stack" not in repr(late)
    assert str(late) == f"{late.summary}; it sits at\n{late.stack}"
    assert snapshot.render(color=False).splitlines()[1] == "  a   stopping      3.0 s  stubborn, ignores its kill"


async def test_a_plain_root_is_called_the_root(autojump_clock: MockClock) -> None:
    """It has no path."""
    async with watched(stubborn) as root:
        root.kill()
        await trio.sleep(3)
        (late,) = root.snapshot().unstopped
        await root.wait()
    assert late.summary == "the root ignores its kill and still runs 3.0 s after it"


async def test_who_is_stopping_in_time_is_not_unstopped(autojump_clock: MockClock) -> None:
    """It was told to stop, not killed."""
    async with watched(Ordered([("a", lingers)])) as root:
        root.signal(signal.SIGTERM)
        await trio.sleep(2.9)
        assert root.snapshot().unstopped == ()


async def test_log_tells_it_in_full_once_and_then_in_a_line(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Every 2 s, for how long; the stack is in the first."""
    with pytest.raises(ErrorTrace) as caught:
        async with grouper.invoke(Ordered([("web", Ordered([Member("api", stubborn, grace=0)]))])):
            pass
    assert caught.group_contains(StopTimeout)
    first, *reminders = hanging(caplog)
    summary, stack = first.getMessage().split("; it sits at\n")
    assert "await trio.sleep(7)" in stack
    assert [summary, *(each.getMessage() for each in reminders)] == [
        f"member 'web/api' ignores its kill and still runs {seconds}.0 s after it" for seconds in (2, 4, 6)
    ]


async def test_log_has_the_facts_as_fields(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """For those who read it by machine."""
    async with watched(Ordered([("a", stubborn)])) as root:
        root.kill()
        await root.wait()
    fields = [(vars(record)["member"], vars(record)["fact"], vars(record)["seconds"]) for record in hanging(caplog)]
    assert fields == [("a", "unstopped", 2), ("a", "unstopped", 4), ("a", "unstopped", 6)]


async def test_log_says_what_the_snapshot_says(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """The same report, from the same moment on."""
    async with watched(Ordered([("a", stubborn)])) as root:
        root.kill()
        await trio.sleep(2)
        await wait_all_tasks_blocked()
        assert [record.getMessage() for record in hanging(caplog)] == [str(each) for each in root.snapshot().unstopped]


async def test_log_tells_another_life_in_full_again(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """It may hang elsewhere."""
    async with watched(Ordered([Member("a", stubborn, restart=Restart()), ("b", service)])) as root:
        for _ in range(2):
            root["a"].kill()
            await trio.sleep(8)
        assert root["a"].restarts == 2
    assert len([record for record in hanging(caplog) if "it sits at" in record.getMessage()]) == 2


async def test_the_wrapper_of_a_group_is_told_once_its_members_have_ended(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """As long as the group inside tells of its own, it says nothing; then it is told in full, too."""

    class Wrapper:
        runner = Ordered([("a", stubborn)])

        async def run(self, signals: Signals, /, *, task_status: Status) -> None:
            try:
                await self.runner.run(signals, task_status=task_status)
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(4)

    async with watched(Ordered([("w", Wrapper())])) as root:
        root.kill()
        await root.wait()
    told = [record.getMessage().partition("\n")[0] for record in hanging(caplog)]
    assert told == [
        "member 'w/a' ignores its kill and still runs 2.0 s after it; it sits at",
        *(f"member 'w/a' ignores its kill and still runs {seconds}.0 s after it" for seconds in (4, 6)),
        "member 'w' ignores its kill and still runs 8.0 s after it; it sits at",
        "member 'w' ignores its kill and still runs 10.0 s after it",
    ]


def test_rich_is_not_imported_before_it_is_asked_for() -> None:
    """The module is light."""
    assert "rich" not in vars(importlib.import_module("grouper.snapshot"))
