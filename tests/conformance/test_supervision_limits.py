"""How often and how soon (section 4 of the contract of supervision), and what is made of suture's ways (section 8)."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import AsyncGenerator

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from grouper import (
    Backoff,
    DoNotRestart,
    Dynamic,
    ErrorTrace,
    Exit,
    GroupClosed,
    Member,
    Ordered,
    Parallel,
    Process,
    Restart,
    RestartEvent,
    RestartLimitExceeded,
    RestartType,
    Role,
    Signals,
    State,
    Strategy,
    TerminateTree,
)
from grouper.restart import Account
from tests.groups.transitions import known_transitions

from .supervised import AT_ONCE, SLOWLY, Troupe, at_once, ended, heard, supervised

__all__ = ["known_transitions"]


def gave_up(exit: Exit) -> RestartLimitExceeded:
    """The error of the only member that failed, which is that it gave up."""
    assert isinstance(exit.error, ErrorTrace)
    (error,) = exit.error.exceptions
    assert isinstance(error, RestartLimitExceeded)
    return error


async def crashes(name: str, troupe: Troupe, process: Process, seconds: float = 0) -> None:
    """Let a member crash, again and again, until its group ends."""
    while process.exit is None:
        troupe[name].crash()
        await trio.sleep(seconds) if seconds else await wait_all_tasks_blocked()


@pytest.mark.contract("V17")
@pytest.mark.parametrize("limit", [0, 1, 3])
async def test_v17_exceeded_is_strictly_more_than_the_limit(limit: int) -> None:
    """So many restarts are made, and the exit after that is the last; with 0 the first is."""
    troupe = Troupe("a")
    async with supervised(Ordered(troupe.members(at_once(limit=limit)))) as group:
        await crashes("a", troupe, group)
        error = gave_up(await ended(group))
    assert len(troupe["a"].begun) == 1 + limit
    assert group["a"].restarts == limit
    assert isinstance(error.__cause__, OSError)


@pytest.mark.contract("V18")
async def test_v18_a_restart_that_fails_counts_and_takes_its_time() -> None:
    """By default the tries are over after seconds, not within a millisecond: each delay is longer than the one before."""
    troupe = Troupe("a")
    troupe["a"].starts = [None, *[OSError("down")] * 10]
    async with supervised(Ordered(troupe.members(Restart()))) as group:
        troupe["a"].crash()
        gave_up(await ended(group))
    begun = troupe["a"].begun
    delays = [after - before for before, after in itertools.pairwise(begun)]
    assert len(delays) == 5
    for delay, most in zip(delays, (0.1, 0.2, 0.4, 0.8, 1.6), strict=True):
        assert most / 2 <= round(delay, 9) <= most


@pytest.mark.contract("V19")
async def test_v19_a_bad_member_spends_what_is_its_own() -> None:
    """The restarts of others are not used up by it, and the group goes on where it is OPTIONAL."""
    troupe = Troupe("abc")
    a, b, c = troupe.members(at_once(limit=3))
    async with supervised(Parallel([attrs.evolve(a, role=Role.OPTIONAL), b, c])) as group:
        while group["a"].exit is None:
            troupe["a"].crash()
            await wait_all_tasks_blocked()
        for _ in range(3):
            troupe["b"].crash()
            await wait_all_tasks_blocked()
        assert [each.state for each in group.children] == [State.EXHAUSTED, State.READY, State.READY]
        assert [each.restarts for each in group.children] == [3, 3, 0]


@pytest.mark.contract("V19")
@pytest.mark.parametrize("strategy", [Strategy.ALL, Strategy.REST])
async def test_v19_a_group_that_restarts_together_counts_together(strategy: Strategy) -> None:
    """Under ALL and REST there is one count, the group's, whoever crashes."""
    troupe = Troupe("ab")
    async with supervised(Ordered(troupe.members(Restart()), strategy=strategy, restart=at_once(limit=2))) as group:
        for name in "ab":
            troupe[name].crash()
            await wait_all_tasks_blocked()
        assert group.exit is None
        troupe["a"].crash()
        gave_up(await ended(group))


@pytest.mark.contract("V20")
@pytest.mark.parametrize(("apart", "lasts"), [(0.5, False), (1.0, False), (1.0009765625, True), (1.3, True)])
async def test_v20_the_window_is_exact(apart: float, lasts: bool) -> None:
    """A restart that was made `period` seconds before the next counts, and one that is older does not: fractions of seconds do."""
    troupe = Troupe("a")
    async with supervised(Ordered(troupe.members(at_once(limit=1, period=1)))) as group:
        for _ in range(4):
            if group.exit is None:
                troupe["a"].crash()
                await trio.sleep(apart)
        assert (group.exit is None) is lasts


@pytest.mark.contract("V20")
@pytest.mark.parametrize(("delay", "lasts"), [(1, False), (3, False), (3.125, True)])
async def test_v20_the_window_ends_when_the_restart_would_be_made(delay: float, lasts: bool) -> None:
    """The delay is part of it, so that what comes back seldom enough is never given up, and the limit is never passed."""
    troupe = Troupe("a")
    restart = Restart(backoff=Backoff.every(delay), limit=3, period=9)
    async with supervised(Ordered(troupe.members(restart))) as group:
        troupe["a"].starts = [OSError("down")] * 100
        troupe["a"].crash()
        await trio.sleep(60 * delay)
        assert (group.exit is None) is lasts
        begun = troupe["a"].begun[1:]
        assert all(after - before > 9 for before, after in zip(begun, begun[3:], strict=False))


@pytest.mark.contract("V21")
async def test_v21_limits_in_a_tree_multiply() -> None:
    """A group that is restarted may restart its members anew: 2 lives of 2, 3 and 4 levels are 8 lives."""
    troupe = Troupe("a")
    tree = Ordered(troupe.members(at_once(limit=1)))
    for _ in range(2):
        tree = Ordered([Member("inner", tree, restart=at_once(limit=1))])
    async with supervised(tree) as group:
        await crashes("a", troupe, group)
        await ended(group)
    assert len(troupe["a"].begun) == 8


@pytest.mark.contract("V22")
@pytest.mark.parametrize("type", [RestartType.PERMANENT, RestartType.TRANSIENT])
async def test_v22_to_give_up_is_a_failure_for_the_parent(type: RestartType) -> None:
    """Also for one that restarts its members after failures alone."""
    troupe = Troupe("a")
    inner = Ordered(troupe.members(at_once(limit=0)))
    async with supervised(Ordered([Member("inner", inner, restart=at_once(type, limit=5))])) as group:
        troupe["a"].crash()
        await wait_all_tasks_blocked()
        assert (group["inner"].state, group["inner"].restarts) == (State.READY, 1)
        trace = group["inner"].last_error
        assert isinstance(trace, ErrorTrace)
        assert isinstance(trace.exceptions[0], RestartLimitExceeded)


@pytest.mark.contract("V23")
@pytest.mark.parametrize(("limit", "kept"), [(3, 3), (1000, 1000), (math.inf, 0)])
def test_v23_as_many_times_are_kept_as_the_limit_is(limit: float, kept: int) -> None:
    """However many restarts there were: without a limit none are."""
    account = Account(Restart(limit=limit, period=1e9))
    for second in range(5000):
        account.spend(second)
    assert len(account._stamps) == kept


@pytest.mark.contract("V24")
async def test_v24_the_numbers_are_what_their_names_say() -> None:
    """By default 5 restarts in any 10 seconds; and neither of the two numbers is taken for the other."""
    default = Restart()
    assert (default.limit, default.period) == (5, 10)
    for limit, period, lives in ((2, 60, 3), (60, 2, 61)):
        troupe = Troupe("a")
        async with supervised(Ordered(troupe.members(at_once(limit=limit, period=period)))) as group:
            await crashes("a", troupe, group)
        assert len(troupe["a"].begun) == lives


@pytest.mark.contract("V42")
async def test_v42_do_not_restart_means_it_also_wrapped() -> None:
    """In a group, as a cause, through the groups above: nothing restarts what has said so."""
    caused = OSError("wrapped")
    caused.__cause__ = DoNotRestart("enough")
    for error in (DoNotRestart("enough"), ExceptionGroup("wrapped", [OSError(), DoNotRestart("enough")]), caused):
        troupe = Troupe("a")
        inner = Ordered(troupe.members(AT_ONCE))
        async with supervised(Ordered([Member("inner", inner, restart=AT_ONCE)])) as group:
            troupe["a"].crash(error)
            await ended(group)
        assert len(troupe["a"].begun) == 1


@pytest.mark.contract("V42")
async def test_v42_a_removal_waits_and_tells_how_it_ended() -> None:
    """Also of a member that backs off: then it ends cleanly, and its last failure is kept."""
    troupe = Troupe("ab")
    troupe["a"].closing = 3
    group = Dynamic()
    async with supervised(group):
        client = group.client()
        for member in troupe.members(SLOWLY):
            await client.insert(member)
        await wait_all_tasks_blocked()
        assert (await client.remove("a")).ended_at == 3
        b = client.get("b")
        troupe["b"].crash()
        await wait_all_tasks_blocked()
        assert (await client.remove("b")).ok
        assert b is not None
        assert str(b.last_error) == "b broke"


@pytest.mark.contract("V42")
def test_v42_delays_are_spread_by_default() -> None:
    """Those that failed together do not come back together."""
    assert Restart().backoff.jitter == 0.5
    assert len({Restart().backoff.delay(1) for _ in range(10)}) > 1


@pytest.mark.contract("V43")
async def test_v43_nobody_waits_longer_because_others_fail() -> None:
    """Each has its own delay, and is back when that is over."""
    troupe = Troupe("abcd")
    restart = Restart(backoff=Backoff.every(0.5))
    async with supervised(Parallel(troupe.members(restart))):
        for player in troupe:
            player.crash()
            await trio.sleep(0.25)
        await trio.sleep(10)
        assert [player.begun[1] for player in troupe] == [0.5, 0.75, 1.0, 1.25]


@pytest.mark.contract("V43")
async def test_v43_a_group_can_be_run_again_and_takes_nobody_after_its_end() -> None:
    """An insert after the stop is refused, loudly; a second run begins anew."""
    troupe = Troupe("a")
    group = Dynamic()
    for _ in range(2):
        async with supervised(group):
            await group.client().insert(troupe.members(AT_ONCE)[0])
            await wait_all_tasks_blocked()
        with pytest.raises(GroupClosed):
            await group.client().insert(troupe.members(AT_ONCE)[0])
    assert len(troupe["a"].begun) == 2


@pytest.mark.contract("V44")
async def test_v44_a_members_own_timeout_is_its_failure() -> None:
    """What the error looks like says nothing: whether the member was told to stop does."""
    for error in (trio.TooSlowError(), TimeoutError(), trio.ClosedResourceError()):
        troupe = Troupe("a")
        async with supervised(Ordered(troupe.members(AT_ONCE))) as group:
            troupe["a"].crash(error)
            await wait_all_tasks_blocked()
            assert (group["a"].state, group["a"].restarts, group["a"].last_error) == (State.READY, 1, error)


@pytest.mark.contract("V45")
async def test_v45_an_exit_is_noticed_when_it_happens() -> None:
    """Also the end of one that has just begun, and a clean one: nothing is polled."""
    troupe = Troupe("ab")
    async with supervised(Parallel(troupe.members(AT_ONCE))) as group:
        await trio.sleep(0.3)
        troupe["a"].crash()
        troupe["b"].finish()
        await wait_all_tasks_blocked()
        assert [player.begun for player in troupe] == [[0, 0.3], [0, 0.3]]
        assert group.exit is None


@pytest.mark.contract("V48")
def test_v48_a_limit_has_one_owner() -> None:
    """Under ALL and REST the group counts, so a member that has numbers of its own is refused."""
    troupe = Troupe("a")
    with pytest.raises(ValueError, match="the group counts"):
        Ordered(troupe.members(Restart(limit=3)), strategy=Strategy.ALL)
    with pytest.raises(ValueError, match="use the Restart's own limit"):
        Restart(backoff=Backoff(attempts=3))


@contextlib.asynccontextmanager
async def exhausted(troupe: Troupe) -> AsyncGenerator[Process]:
    """A group whose member `a` has given up after 2 restarts, beside one that goes on."""
    a, b = troupe.members(at_once(limit=2))
    async with supervised(Parallel([attrs.evolve(a, role=Role.OPTIONAL), b])) as group:
        while group["a"].exit is None:
            troupe["a"].crash()
            await wait_all_tasks_blocked()
        yield group


@pytest.mark.contract("V48")
async def test_v48_who_gave_up_is_seen_to_have_given_up() -> None:
    """It has ended, and its state says why: nothing is up that does nothing."""
    async with exhausted(Troupe("ab")) as group:
        assert group["a"].state is State.EXHAUSTED
        assert isinstance(group["a"].last_error, RestartLimitExceeded)


@pytest.mark.contract("W2")
async def test_w02_a_limit_is_told_before_it_is_reached_and_explains_itself() -> None:
    """Each restart says how many are used of how many; the error says how many there were in what time."""
    troupe = Troupe("a")
    troupe["a"].starts = [None, *[OSError("down")] * 5]
    restart = Restart(backoff=Backoff.every(0.5), limit=3, period=60)
    async with supervised(Ordered([("web", Ordered([Member("api", troupe["a"], restart=restart)]))])) as group:
        troupe["a"].crash()
        await ended(group)
        events = [event for event in await heard(group) if isinstance(event, RestartEvent)]
    assert [str(event) for event in events] == [f"member 'web/api' is restarted in 0.5 s ({used} of 3 used)" for used in (1, 2, 3)]
    error = group["web/api"].last_error
    assert str(error) == "member 'web/api' gave up after 3 restarts in 1 s: one more would be over the limit of 3 in 60 s"
    assert error is not None
    assert "given up after 3 restarts in 1 s" in getattr(error.__cause__, "__notes__", [])


@pytest.mark.contract("W2")
async def test_w02_what_happens_at_the_limit_is_a_choice() -> None:
    """Fail the group, leave the member down, or go on for ever: role and `limit` say so."""
    for role, limit, lives, up in ((Role.SERVICE, 3, 4, False), (Role.OPTIONAL, 3, 4, True), (Role.SERVICE, math.inf, 51, True)):
        troupe = Troupe("ab")
        a, b = troupe.members(at_once(limit=limit))
        async with supervised(Parallel([attrs.evolve(a, role=role), b])) as group:
            for _ in range(50):
                troupe["a"].crash()
                await wait_all_tasks_blocked()
            assert (len(troupe["a"].begun), group.exit is None) == (lives, up)


@pytest.mark.contract("W10")
async def test_w10_who_gave_up_can_be_started_again_by_hand() -> None:
    """With all of its restarts."""
    troupe = Troupe("ab")
    async with exhausted(troupe) as group:
        await group.start("a")
        for _ in range(2):
            troupe["a"].crash()
            await wait_all_tasks_blocked()
        assert (group["a"].state, len(troupe["a"].begun)) == (State.READY, 6)


@pytest.mark.contract("W11")
async def test_w11_one_member_can_end_the_whole_tree() -> None:
    """`TerminateTree`, however deep and wrapped, in whatever role: all is stopped in order, and nothing restarted."""
    troupe = Troupe("abcd")
    a, b, c, d = troupe.members(AT_ONCE)
    inner = Ordered([b, attrs.evolve(c, role=Role.OPTIONAL)])
    tree = Ordered([a, Member("inner", inner, restart=AT_ONCE, role=Role.OPTIONAL), d])
    async with supervised(tree) as group:
        await troupe.news()
        troupe["c"].crash(ExceptionGroup("wrapped", [TerminateTree("no use")]))
        exit = await ended(group)
    assert troupe.log == ["crash c", "down b", "down d", "down a"]
    assert isinstance(exit.error, ErrorTrace)
    assert exit.error.subgroup(TerminateTree) is not None


@pytest.mark.contract("W1")
async def test_w01_delays_grow_up_to_a_cap_and_begin_anew_after_health() -> None:
    """First delay, factor, cap, and how long it must have been well: each member's own."""
    troupe = Troupe("a")
    restart = Restart(backoff=Backoff(1, factor=3, cap=5, jitter=0), limit=math.inf, reset_after=20)
    async with supervised(Ordered(troupe.members(restart))):
        for healthy in (0, 0, 0, 0, 18, 19):
            await trio.sleep(healthy)
            troupe["a"].crash()
            await trio.sleep(6)
    assert troupe["a"].begun == [0, 1, 9, 17, 23, 47, 68]


@pytest.mark.contract("W14")
async def test_w14_a_group_tells_a_stop_from_an_error_by_who_asked_for_it() -> None:
    """A member that raises what looks like a cancellation while it is being stopped has failed to stop, and is not restarted."""
    troupe = Troupe("a")

    async def late(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await signals.wait()
        raise trio.TooSlowError

    async with supervised(Ordered([Member("late", late, restart=AT_ONCE), *troupe.members()])) as group:
        pass
    assert isinstance(group["late"].last_error, trio.TooSlowError)
    assert group["late"].restarts == 0
