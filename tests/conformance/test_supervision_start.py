"""Starting under supervision, and which exits restart (sections 1 and 2 of the contract of supervision)."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from grouper import (
    DoNotRestart,
    DuplicateNames,
    Dynamic,
    ErrorTrace,
    ExitedBeforeReady,
    Graph,
    Member,
    Ordered,
    Parallel,
    Process,
    Restart,
    RestartLimitExceeded,
    RestartType,
    Role,
    Signals,
    State,
    Strategy,
)
from grouper.restart import RESTARTS, Ending
from tests.groups.transitions import known_transitions

from .supervised import AT_ONCE, SLOWLY, Troupe, at_once, ended, supervised

__all__ = ["known_transitions"]

PERMANENT, TRANSIENT, TEMPORARY = RestartType


def trace_of(process: Process) -> ErrorTrace:
    """The trace with which a group ended."""
    assert process.exit is not None
    assert isinstance(process.exit.error, ErrorTrace)
    return process.exit.error


@pytest.mark.contract("V1")
async def test_v01_a_member_that_cannot_start_takes_back_those_before_it() -> None:
    """Those after it are never started, those before it are stopped in reverse, and the error names it."""
    troupe = Troupe("abcd")
    troupe["c"].starts = [OSError("nope")]
    async with supervised(Ordered(troupe.members(AT_ONCE))) as group:
        await ended(group)
    assert troupe.log == ["up a", "up b", "start_failed c", "down b", "down a"]
    (error,) = trace_of(group).exceptions
    assert str(error) == "nope"
    assert "in member 'c'" in error.__notes__


@pytest.mark.contract("V2")
async def test_v02_what_a_member_tells_when_it_is_ready_is_its_value() -> None:
    """`start` returns the process, and that has it."""
    troupe = Troupe("a")
    async with supervised(Ordered(troupe.members(AT_ONCE))) as group:
        await group.stop("a")
        assert (await group.start("a")).value == 2


@pytest.mark.contract("V2")
async def test_v02_a_member_that_has_nothing_to_do_may_say_so() -> None:
    """None in place of a member is left out; an OPTIONAL one that returns keeps nobody from starting, and can be started later."""
    troupe = Troupe("ac")
    runs: list[str] = []

    async def ignore(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        runs.append("ignore")

    a, c = troupe.members()
    async with supervised(Ordered([a, None, Member("b", ignore, role=Role.OPTIONAL), c])) as group:
        assert [process.state for process in group.children] == [State.READY, State.EXITED, State.READY]
        with pytest.raises(ExitedBeforeReady):
            await group.start("b", cascade=True)
        assert (runs, len(group.children)) == (["ignore", "ignore"], 3)


@pytest.mark.contract("V3")
async def test_v03_to_raise_to_return_and_to_be_no_coroutine_are_failed_starts_alike() -> None:
    """The group ends with the failure, and nobody is up."""

    async def returns(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        pass

    async def raises(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        raise OSError("nope")

    def is_none(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> str:
        return "nope"

    kinds: list[type[Exception]] = []
    for bad in (returns, raises, is_none):
        troupe = Troupe("a")
        given: Any = bad
        async with supervised(Ordered([*troupe.members(), ("bad", given)])) as group:
            await ended(group)
        assert troupe.log == ["up a", "down a"]
        kinds.extend(type(error) for error in trace_of(group).exceptions)
    assert kinds == [ExitedBeforeReady, OSError, TypeError]


@pytest.mark.contract("V3")
async def test_v03_a_member_that_could_not_be_inserted_is_not_kept() -> None:
    """A Dynamic knows those that run; one whose start failed can be inserted again under its name."""
    troupe = Troupe("a")
    troupe["a"].starts = [OSError("nope")]
    group = Dynamic()
    async with supervised(group):
        client = group.client()
        first = await client.insert(troupe.members(AT_ONCE)[0])
        assert not (await first.wait()).ok
        assert client.get("a") is None
        second = await client.insert(troupe.members(AT_ONCE)[0])
        assert await second.wait_ready() == 2


@pytest.mark.contract("V3")
async def test_v03_a_member_whose_start_by_hand_fails_is_kept() -> None:
    """It is down and in its place, and can be started again."""
    troupe = Troupe("ab")
    a, b = troupe.members()
    async with supervised(Ordered([a, attrs.evolve(b, role=Role.OPTIONAL)])) as group:
        await group.stop("b")
        troupe["b"].starts = [OSError("nope")]
        with pytest.raises(ExitedBeforeReady) as caught:
            await group.start("b")
        assert str(caught.value.__cause__) == "nope"
        assert (group["b"].state, str(group["b"].last_error)) == (State.EXITED, "nope")
        assert (await group.start("b")).state is State.READY


@pytest.mark.contract("V4")
async def test_v04_the_first_start_is_not_tried_again_and_a_restart_is() -> None:
    """What never worked fails the group at once; what worked once is tried again, each try counted."""
    troupe = Troupe("ab")
    troupe["a"].starts = [None, OSError("not yet"), OSError("not yet")]
    a, b = troupe.members(AT_ONCE)
    async with supervised(Ordered([a])) as group:
        troupe["a"].crash()
        assert await troupe.news() == ["up a", "crash a", "start_failed a", "start_failed a", "up a"]
        assert group["a"].restarts == 3
    troupe["b"].starts = [OSError("nope"), None]
    async with supervised(Ordered([b])) as group:
        await ended(group)
    assert len(troupe["b"].begun) == 1


@pytest.mark.contract("V4")
async def test_v04_a_first_start_is_tried_again_where_that_is_asked_for() -> None:
    """`start_errors=True` says so, and a JOB means it: all that it ever does is its start."""
    troupe = Troupe("ab")
    troupe["a"].starts = [OSError("not yet"), OSError("not yet")]
    tries: list[int] = []

    async def job(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("not yet")

    members = [
        Member("a", troupe["a"], restart=at_once(start_errors=True)),
        Member("job", job, role=Role.JOB, restart=at_once(TRANSIENT)),
        Member("b", troupe["b"]),
    ]
    async with supervised(Ordered(members)):
        assert await troupe.news() == ["start_failed a", "start_failed a", "up a", "up b"]
        assert len(tries) == 3


@pytest.mark.contract("V5")
async def test_v05_names_are_unique_when_a_group_is_made_and_while_it_runs() -> None:
    """A group with two of a name cannot be made; a name of a Dynamic is free again when its member has ended."""
    troupe = Troupe("ab")
    with pytest.raises(DuplicateNames) as refused:
        Ordered([*troupe.members(), *troupe.members()])
    assert refused.value.names == ("a", "b")
    group = Dynamic()
    async with supervised(group):
        client = group.client()
        process = await client.insert(troupe.members(SLOWLY)[0])
        await troupe.news()
        troupe["a"].crash()
        await troupe.news()
        assert process.state is State.BACKOFF
        with pytest.raises(DuplicateNames):
            await client.insert(("a", troupe["b"]))
        await client.remove("a")
        await client.insert(("a", troupe["b"]))


@pytest.mark.contract("V5")
async def test_v05_to_start_what_runs_is_to_wait_until_it_is_ready() -> None:
    """It is what was asked for, and so no error."""
    troupe = Troupe("a")
    async with supervised(Ordered(troupe.members())) as group:
        assert await group.start("a") is group["a"]
        assert len(troupe["a"].begun) == 1


@pytest.mark.contract("V7")
def test_v07_what_is_wrong_is_refused_before_anything_starts() -> None:
    """Types, numbers, unknown arguments: all when the description is made, by name."""
    troupe = Troupe("a")
    loose: Any = Restart
    member: Any = Member
    with pytest.raises(TypeError, match="max_restarts"):
        loose(max_restarts=3)
    with pytest.raises(TypeError, match="shutdown"):
        member("a", troupe["a"], shutdown=5)
    with pytest.raises(TypeError, match="PERMANENT"):
        loose("permanent")
    for wrong in ({"limit": -1}, {"limit": 1.5}, {"period": 0}, {"period": -1}, {"reset_after": math.nan}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            loose(**wrong)


EXITS = {
    Ending.CLEAN: "finish",
    Ending.FAILURE: OSError("broke"),
    Ending.REFUSED: DoNotRestart("enough"),
    Ending.SIBLING: "sibling",
    Ending.BY_HAND: "stop",
}


@pytest.mark.contract("V8")
@pytest.mark.parametrize(("type", "ending"), RESTARTS, ids=lambda value: value.name)
async def test_v08_what_restarts_is_a_table(type: RestartType, ending: Ending) -> None:
    """For each type and each kind of exit: whether the member is up again, and that all stays as the table says."""
    troupe = Troupe("ab")
    a = Member("a", troupe["a"], restart=Restart())
    b = Member("b", troupe["b"], role=Role.OPTIONAL, restart=Restart(type))
    async with supervised(Parallel([a, b], strategy=Strategy.ALL, restart=AT_ONCE)) as group:
        act = EXITS[ending]
        if isinstance(act, Exception):
            troupe["b"].crash(act)
        elif act == "finish":
            troupe["b"].finish()
        elif act == "sibling":
            troupe["a"].crash()
        else:
            await group.stop("b")
        await wait_all_tasks_blocked()
        restarted = RESTARTS[type, ending]
        assert group["b"].state is (State.READY if restarted else State.STOPPED if act == "stop" else State.EXITED)
        assert (group["b"].restarts, len(troupe["b"].begun)) == ((1, 2) if restarted else (0, 1))
        assert group["a"].state is State.READY


@pytest.mark.contract("V8")
async def test_v08_a_permanent_member_that_returns_uses_up_its_restarts() -> None:
    """Its absence is a failure, and counts; what is told is that it gave up, and there is no error to blame."""
    troupe = Troupe("a")
    async with supervised(Ordered(troupe.members(at_once(limit=1)))) as group:
        troupe["a"].finish()
        await wait_all_tasks_blocked()
        assert group["a"].state is State.READY
        troupe["a"].finish()
        await ended(group)
    (error,) = trace_of(group).exceptions
    assert isinstance(error, RestartLimitExceeded)
    assert error.__cause__ is None


@pytest.mark.contract("V8")
async def test_v08_only_the_exceptions_in_on_count() -> None:
    """Others are failures that no restart would mend."""
    troupe = Troupe("a")
    async with supervised(Ordered(troupe.members(at_once(on=OSError, limit=5)))) as group:
        troupe["a"].crash(ConnectionResetError("it is an OSError"))
        await wait_all_tasks_blocked()
        troupe["a"].crash(ExceptionGroup("wrapped", [OSError("one of those in it is enough")]))
        await wait_all_tasks_blocked()
        assert group["a"].restarts == 2
        troupe["a"].crash(ValueError("a bug"))
        await ended(group)
    assert [str(error) for error in trace_of(group).exceptions] == ["a bug"]


@pytest.mark.contract("V9")
@pytest.mark.parametrize("strategy", [Strategy.ALL, Strategy.REST])
async def test_v09_who_was_down_already_stays_down(strategy: Strategy) -> None:
    """A sibling's restart does not start what had finished, or what somebody had stopped."""
    troupe = Troupe("abcd")
    members = [
        Member("a", troupe["a"], restart=Restart()),
        Member("b", troupe["b"], after="a", role=Role.OPTIONAL, restart=Restart(TRANSIENT)),
        Member("c", troupe["c"], after="a", restart=Restart()),
        Member("d", troupe["d"], after="a", restart=Restart()),
    ]
    async with supervised(Graph(members, strategy=strategy, restart=AT_ONCE)) as group:
        troupe["b"].finish()
        await group.stop("c")
        await troupe.news()
        troupe["a"].crash()
        assert await troupe.news() == ["crash a", "down d", "up a", "up d"]
        assert [each.state for each in group.children] == [State.READY, State.EXITED, State.STOPPED, State.READY]


@pytest.mark.contract("V10")
async def test_v10_a_dynamic_group_forgets_a_member_that_a_restart_finished() -> None:
    """Its name and its room are free: no state of its last life but one is left."""
    lives: list[int] = []

    async def once(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        task_status.started()
        lives.append(1)
        if len(lives) == 1:
            raise OSError("broke")

    group = Dynamic(capacity=1)
    async with supervised(group) as process:
        client = group.client()
        member = await client.insert(Member("a", once, restart=at_once(TRANSIENT)))
        assert (await member.wait()).ok
        assert (client.get("a"), process.children, len(lives)) == (None, (), 2)
        client.insert_nowait(Member("a", once))


@pytest.mark.contract("V49")
async def test_v49_before_it_was_ready_a_failure_ends_it_and_afterwards_it_is_restarted() -> None:
    """One policy says both: fail fast when the program starts, restart with delays once it has worked."""
    troupe = Troupe("a")
    troupe["a"].starts = [OSError("wrong address")]
    async with supervised(Ordered(troupe.members(SLOWLY))) as group:
        await ended(group)
    assert troupe["a"].begun == [0]
    troupe["a"].starts = [None, OSError("still down"), None]
    async with supervised(Ordered(troupe.members(SLOWLY))) as group:
        troupe["a"].crash()
        await trio.sleep(10)
        assert troupe["a"].begun == [0, 0, 1, 2]
        assert group["a"].state is State.READY
