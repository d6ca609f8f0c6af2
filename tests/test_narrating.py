"""The log of a tree's life: the line, its level and its facts, for each kind."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import signal
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import grouper
from grouper import Backoff, Dynamic, Member, Ordered, Parallel, Process, Restart, Role, Signals, Strategy
from grouper.narrating import Narrator
from grouper.runner import RunnerLike

from .groups.members import deaf, fails, fails_later, never_ready, returns, returns_ready, service

SECOND = Backoff(1, jitter=0)
real_time = pytest.mark.real_time


class Log:
    """What was logged to `grouper`."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "grouper")
        self.caplog = caplog

    @property
    def records(self) -> list[logging.LogRecord]:
        return [each for each in self.caplog.records if each.name == "grouper"]

    def lines(self, member: str) -> list[str]:
        """The lines of one member, with their levels."""
        return [f"{each.levelname} {each.getMessage()}" for each in self.records if each.__dict__.get("member") == member]

    def facts(self, member: str, fact: str) -> dict[str, Any]:
        """What the last record of that kind says besides its line."""
        plain = logging.makeLogRecord({}).__dict__.keys() | {"message", "asctime"}
        found = [each for each in self.records if (each.__dict__.get("member"), each.__dict__.get("fact")) == (member, fact)]
        return {key: value for key, value in found[-1].__dict__.items() if key not in plain}

    def tracebacks(self) -> list[tuple[str, BaseException]]:
        """The lines that have one, by member, and of what."""
        return [(each.__dict__["member"], each.exc_info[1]) for each in self.records if each.exc_info and each.exc_info[1]]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Log:
    return Log(caplog)


@contextlib.asynccontextmanager
async def told(runner: RunnerLike) -> AsyncGenerator[Process]:
    """Run beside the block what is narrated from its first step on; what it raises is not of interest."""
    embedded: Any = grouper.background(runner)
    embedded.engine.ring.hearers.append(Narrator())
    with contextlib.suppress(Exception):
        async with embedded as process:
            yield process


class Flaky:
    """Ready after `start` seconds; fails `lives` times, a second after that, and then waits to be told to stop."""

    def __init__(self, lives: float = math.inf, start: float = 0) -> None:
        self.lives, self.start = lives, start

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        await trio.sleep(self.start)
        task_status.started()
        self.lives -= 1
        if self.lives < 0:
            await signals.wait()
        else:
            await trio.sleep(1)
            raise OSError("gone")


# the lines


async def test_life_of_a_member(autojump_clock: MockClock, log: Log) -> None:
    """Started, ready, told to stop, exited: four lines."""
    async with told(Ordered([("web", service)])):
        await wait_all_tasks_blocked()
    assert log.lines("web") == [
        "INFO member 'web' started",
        "INFO member 'web' is ready",
        "INFO member 'web' is told SIGTERM and has 10 s to stop",
        "INFO member 'web' exited",
    ]


async def test_root_is_called_so(autojump_clock: MockClock, log: Log) -> None:
    """It has no name, and its path is empty."""
    async with told(service):
        await wait_all_tasks_blocked()
    assert log.lines("") == [
        "INFO the root started",
        "INFO the root is ready",
        "INFO the root is told SIGTERM and has 10 s to stop",
        "INFO the root exited",
    ]


async def test_group_has_no_limit_of_grace_to_tell(autojump_clock: MockClock, log: Log) -> None:
    """Its members' graces bound it."""
    async with told(Ordered([("web", Ordered([("api", service)]))])):
        await wait_all_tasks_blocked()
    assert "INFO member 'web' is told SIGTERM" in log.lines("web")


async def test_failure_is_reported_with_runner_duration_and_restarts(autojump_clock: MockClock, log: Log) -> None:
    """All in one line, which has the traceback."""
    async with told(Ordered([("db", service), ("web", fails_later)])) as process:
        await process.wait()
    assert log.lines("web")[-1] == "ERROR member 'web' (fails_later) failed after 1 s, never restarted"
    assert [(member, str(error)) for member, error in log.tracebacks()] == [("web", "gone")]


async def test_long_life_is_told_for_people(autojump_clock: MockClock, log: Log) -> None:
    """Not as a number of seconds."""
    async with told(Ordered([Member("web", Flaky(1, start=3600))])) as process:
        await process.wait()
    assert log.lines("web")[-1] == "ERROR member 'web' (Flaky) failed after 1h0m, never restarted"


async def test_restart_is_told_with_its_delay_and_what_is_used_of_the_limit(autojump_clock: MockClock, log: Log) -> None:
    """After the failure, which counts the restarts that were made."""
    web = Member("web", Flaky(2), restart=Restart(backoff=Backoff(1, jitter=0), limit=5))
    async with told(Ordered([web])):
        await trio.sleep(10)
    assert [line for line in log.lines("web") if "INFO" not in line] == [
        "ERROR member 'web' (Flaky) failed after 1 s, never restarted",
        "WARNING member 'web' is restarted in 1 s (1 of 5 used)",
        "ERROR member 'web' (Flaky) failed after 1 s, restarted once",
        "WARNING member 'web' is restarted in 2 s (2 of 5 used)",
    ]


async def test_each_life_is_told(autojump_clock: MockClock, log: Log) -> None:
    """A restart's start and ready as any other."""
    async with told(Ordered([Member("web", Flaky(1), restart=Restart(backoff=SECOND))])):
        await trio.sleep(10)
    assert [line.rpartition("'web' ")[2] for line in log.lines("web") if "INFO" in line] == [
        "started",
        "is ready",
        "started",
        "is ready",
        "is told SIGTERM and has 10 s to stop",
        "exited",
    ]


async def test_giving_up_is_a_failure_that_counts_the_restarts(autojump_clock: MockClock, log: Log) -> None:
    """Its traceback has the last error as the cause."""
    web = Member("web", Flaky(), restart=Restart(backoff=SECOND, limit=2, period=100))
    async with told(Ordered([web])) as process:
        await process.wait()
    assert log.lines("web")[-1] == "ERROR member 'web' (Flaky) failed after 1 s, restarted 2 times"
    (_, last) = log.tracebacks()[-1]
    assert (type(last).__name__, type(last.__cause__).__name__) == ("RestartLimitExceeded", "OSError")


async def test_stop_while_waiting_for_a_restart_is_no_second_exit_of_a_life(autojump_clock: MockClock, log: Log) -> None:
    """The life's end was told; this line says that none follows."""
    async with told(Ordered([Member("web", Flaky(), restart=Restart(backoff=Backoff(60, cap=60, jitter=0)))])):
        await trio.sleep(10)
    assert log.lines("web")[-1] == "INFO member 'web' is not restarted any more"
    assert "seconds" not in log.facts("web", "exit")


async def test_kill_while_waiting_for_a_restart_is_a_failure(autojump_clock: MockClock, log: Log) -> None:
    """It is told, with why, and that no life has ended by it."""
    flaky = Member("web", Flaky(), restart=Restart(backoff=Backoff(60, cap=60, jitter=0)))
    async with told(Ordered([flaky])) as process:
        await trio.sleep(10)
        process["web"].kill("enough")
        await process.wait()
    assert log.lines("web")[-1] == "ERROR member 'web' (Flaky) failed while it waited for its restart"
    assert str(log.tracebacks()[-1][1]) == "member 'web' was killed: enough"


async def test_siblings_that_come_again_exit_and_start(autojump_clock: MockClock, log: Log) -> None:
    """Only the one that failed has a line of its restart."""
    db = Member("db", Flaky(1), restart=Restart())
    async with told(Ordered([db, ("web", service)], strategy=Strategy.ALL, restart=Restart(backoff=SECOND))):
        await trio.sleep(10)
    assert [line.rpartition("'web' ")[2] for line in log.lines("web")][2:6] == [
        "is told SIGTERM and has 10 s to stop",
        "exited",
        "started",
        "is ready",
    ]
    assert log.facts("db", "restart")["limit"] == 5


async def test_late_stop_is_a_kill_that_says_why(autojump_clock: MockClock, log: Log) -> None:
    """And the exit is a failure."""
    async with told(Ordered([Member("web", deaf, grace=3)])):
        await wait_all_tasks_blocked()
    assert log.lines("web")[2:] == [
        "INFO member 'web' is told SIGTERM and has 3 s to stop",
        "WARNING member 'web' had not stopped 3 s after SIGTERM and was killed",
        "ERROR member 'web' (deaf) failed after 3 s, never restarted",
    ]


async def test_late_start_is_a_kill_that_says_why(autojump_clock: MockClock, log: Log) -> None:
    """It was never ready."""
    async with told(Ordered([Member("web", never_ready, ready_within=2)])) as process:
        await process.wait()
    assert log.lines("web")[1] == "WARNING member 'web' was not ready within 2 s and was killed"


async def test_kill_by_hand_says_why(autojump_clock: MockClock, log: Log) -> None:
    """The reason that was given."""
    async with told(Ordered([("web", deaf)])) as process:
        await wait_all_tasks_blocked()
        process["web"].kill("it leaks 100% of it")
        await process.wait()
    assert log.lines("web")[2] == "WARNING member 'web' was killed: it leaks 100% of it"


async def test_kill_of_what_is_stopping_says_so(autojump_clock: MockClock, log: Log) -> None:
    """Nobody has failed by that."""
    async with told(Ordered([("web", deaf)])) as process:
        await wait_all_tasks_blocked()
        process.signal(signal.SIGTERM)
        await wait_all_tasks_blocked()
        process["web"].kill()
        await process.wait()
    assert log.lines("web")[3:] == ["WARNING member 'web' is killed while it is stopping", "INFO member 'web' was killed"]


async def test_kill_of_a_whole_group_says_so(autojump_clock: MockClock, log: Log) -> None:
    """As a cancellation does it."""
    with trio.CancelScope() as scope:
        async with told(Ordered([("web", deaf)])):
            await wait_all_tasks_blocked()
            scope.cancel()
            await trio.sleep_forever()
    assert log.lines("")[2:] == ["WARNING the root is killed", "INFO the root was killed"]
    assert log.lines("web")[2:] == ["WARNING member 'web' is killed with its group", "INFO member 'web' was killed"]


async def test_further_signal_to_one_that_is_removed_begins_no_new_grace(autojump_clock: MockClock, log: Log) -> None:
    """It hears the group's, and is not promised what it does not have."""
    group = Dynamic()
    async with told(group) as process:
        await process.wait_ready()
        await group.client().insert(("a", deaf))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(group.client().remove, "a")
            await trio.sleep(4)
            process.signal(signal.SIGTERM)
    assert [line for line in log.lines("a") if "is told" in line] == [
        "INFO member 'a' is told SIGTERM and has 10 s to stop",
        "INFO member 'a' is told SIGTERM",
    ]


async def test_optional_failure_is_told(autojump_clock: MockClock, log: Log) -> None:
    """With its traceback: it is raised nowhere."""
    async with told(Ordered([Member("web", fails_later, role=Role.OPTIONAL), ("db", service)])):
        await trio.sleep(2)
    assert log.lines("web")[-1] == "ERROR member 'web' (fails_later) failed after 1 s, never restarted"
    assert [member for member, _ in log.tracebacks()] == ["web"]


# the traceback


async def test_traceback_is_shown_once_through_all_levels(autojump_clock: MockClock, log: Log) -> None:
    """The groups above have failed too, and their lines show none."""
    async with told(Ordered([("a", Ordered([("b", Parallel([("c", fails_later)]))]))])) as process:
        await process.wait()
    assert [line for line in log.lines("a/b") if "ERROR" in line] == [
        "ERROR member 'a/b' (Parallel) failed after 1 s, never restarted"
    ]
    assert [member for member, _ in log.tracebacks()] == ["a/b/c"]


@pytest.mark.parametrize("others", [(), (("fails", fails_later),)], ids=["alone", "with a failure"])
async def test_traceback_of_what_is_no_exception_is_shown_once(
    autojump_clock: MockClock, log: Log, others: tuple[tuple[str, RunnerLike], ...]
) -> None:
    """SystemExit passes through the groups bare, or in a group with their traces."""

    async def quits(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        task_status.started()
        await trio.sleep(1)
        raise SystemExit(7)

    with contextlib.suppress(SystemExit, BaseExceptionGroup):
        async with told(Ordered([("a", Ordered([("b", Parallel([("quits", quits), *others]))]))])) as process:
            await process.wait()
    assert sorted(member for member, _ in log.tracebacks()) == sorted(["a/b/quits", *(f"a/b/{name}" for name, _ in others)])
    assert all(any("ERROR" in line for line in log.lines(path)) for path in ("", "a", "a/b"))


async def test_trace_of_a_tree_that_was_not_told_is_shown(autojump_clock: MockClock, log: Log) -> None:
    """A runner that runs a group with signals of its own: no line was written for what is in it."""

    async def outer(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        await Ordered([("b", fails)]).run(Signals(), task_status=task_status)

    async with told(Ordered([("a", outer)])) as process:
        await process.wait()
    assert [member for member, _ in log.tracebacks()] == ["a"]


async def test_group_that_was_never_ready_shows_why(autojump_clock: MockClock, log: Log) -> None:
    """Its error is its own: no member has failed."""
    async with told(Ordered([("a", Ordered([Member("b", returns_ready), ("c", never_ready)]))])) as process:
        await process.wait()
    assert [member for member, _ in log.tracebacks()] == ["a"]


# the facts


async def test_facts_of_a_start_and_an_end(autojump_clock: MockClock, log: Log) -> None:
    """Besides the line, under keys of their own."""
    async with told(Ordered([("web", Flaky(0, start=2))])):
        await trio.sleep(5)
    who = {"member": "web", "runner": "Flaky"}
    assert log.facts("web", "start") == {**who, "fact": "start", "restarts": 0}
    assert log.facts("web", "ready") == {**who, "fact": "ready", "seconds": 2}
    assert log.facts("web", "signal") == {**who, "fact": "signal", "signal": "SIGTERM", "grace": 10}
    assert log.facts("web", "exit") == {**who, "fact": "exit", "seconds": 5, "outcome": "clean", "restarts": 0}


async def test_facts_of_a_restart(autojump_clock: MockClock, log: Log) -> None:
    """The delay, and the numbers of the line."""
    async with told(Ordered([Member("web", Flaky(1), restart=Restart(backoff=SECOND, limit=3))])):
        await trio.sleep(5)
    facts = {"member": "web", "runner": "Flaky", "fact": "restart", "seconds": 1, "used": 1, "limit": 3, "restarts": 0}
    assert log.facts("web", "restart") == facts
    assert log.facts("web", "start")["restarts"] == 1


async def test_infinite_limit_and_grace_are_left_out(autojump_clock: MockClock, log: Log) -> None:
    """JSON has no infinity."""
    restart = Restart(backoff=SECOND, limit=math.inf)
    async with told(Ordered([Member("web", Flaky(1), restart=restart, grace=math.inf)])):
        await trio.sleep(5)
    assert "limit" not in log.facts("web", "restart")
    assert "grace" not in log.facts("web", "signal")


async def kills(process: Process) -> None:
    process["web"].kill()
    await process.wait()


async def stops_and_kills(process: Process) -> None:
    process.signal(signal.SIGTERM)
    await wait_all_tasks_blocked()
    process["web"].kill()
    await process.wait()


async def waits(process: Process) -> None:
    await process.wait()


OUTCOMES: dict[str, tuple[RunnerLike, Callable[[Process], Any], str]] = {
    "returns": (returns_ready, waits, "clean"),
    "fails": (fails_later, waits, "failed"),
    "returns too early": (returns, waits, "failed"),
    "is killed by hand": (deaf, kills, "failed"),
    "is killed while it stops": (deaf, stops_and_kills, "killed"),
}


@pytest.mark.parametrize(("runner", "do", "outcome"), OUTCOMES.values(), ids=OUTCOMES)
async def test_outcome(autojump_clock: MockClock, log: Log, runner: RunnerLike, do: Callable[[Process], Any], outcome: str) -> None:
    """A word for each way to end."""
    async with told(Ordered([("web", runner)])) as process:
        await wait_all_tasks_blocked()
        await do(process)
    assert log.facts("web", "exit")["outcome"] == outcome


async def test_records_can_be_formatted_as_json(autojump_clock: MockClock, log: Log) -> None:
    """By a formatter that takes what is in the record and knows nothing of grouper; no number in it is infinite."""
    web = Member("web", Flaky(1), restart=Restart(backoff=SECOND, limit=math.inf), grace=math.inf)
    async with told(Ordered([web, ("late", deaf)])):
        await trio.sleep(5)
    plain = logging.makeLogRecord({}).__dict__.keys()

    class AsJson(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return json.dumps({"text": record.getMessage(), **{k: v for k, v in record.__dict__.items() if k not in plain}})

    rows = [json.loads(AsJson().format(each), parse_constant=pytest.fail) for each in log.records]
    assert {row["fact"] for row in rows} == {"start", "ready", "exit", "restart", "signal", "kill"}
    assert all(row["text"] and isinstance(row["member"], str) and isinstance(row["runner"], str) for row in rows)


# where it comes from


async def test_narrating_costs_nothing_where_nobody_wants_it(autojump_clock: MockClock, log: Log) -> None:
    """Below the logger's level no record is made."""
    log.caplog.set_level(logging.ERROR, "grouper")
    async with told(Ordered([("web", service)])):
        await wait_all_tasks_blocked()
    assert log.records == []


@real_time
def test_lines_are_written_when_it_happens(log: Log) -> None:
    """A member that looks sees the line of its own start, and of its ready as soon as the group knows of it."""
    seen: list[list[str]] = []

    async def looks(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        seen.append(log.lines("web"))
        task_status.started()
        await wait_all_tasks_blocked()
        seen.append(log.lines("web")[1:])

    grouper.run(Ordered([("web", looks)]))
    assert seen == [["INFO member 'web' started"], ["INFO member 'web' is ready"]]


@real_time
def test_end_is_told_after_a_second_signal(log: Log) -> None:
    """Nothing is lost where all is cancelled."""

    async def stubborn(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        task_status.started()
        signal.raise_signal(signal.SIGTERM)
        await signals.wait()
        signal.raise_signal(signal.SIGINT)
        await trio.sleep_forever()

    assert grouper.run(Ordered([("a", Ordered([("b", stubborn)]))])) == 128 + signal.SIGINT
    assert [log.lines(path)[-1].rpartition(" was ")[2] for path in ("a/b", "a", "")] == ["killed"] * 3


@real_time
def test_broken_handler_does_not_stop_the_program(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that cannot be written is no reason to be down."""

    class Broken(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            if record.__dict__.get("fact") == "ready":
                raise RuntimeError("no log")
            return True

    async def ends_soon(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        task_status.started()
        await trio.sleep(0.01)

    broken = Broken()
    logging.getLogger("grouper").addFilter(broken)
    try:
        assert grouper.run(Ordered([("web", ends_soon)])) == 0
    finally:
        logging.getLogger("grouper").removeFilter(broken)
    assert log.lines("web")[-1] == "INFO member 'web' exited"


async def test_embedded_tree_is_not_told(autojump_clock: MockClock, log: Log) -> None:
    """`invoke` and `background` are quiet: theirs is a program with a log of its own."""
    async with grouper.invoke(service):
        pass
    assert log.records == []
