"""Who is restarted with whom, and what happens when that fails (section 3 of the contract of supervision)."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from grouper import (
    ExitEvent,
    Graph,
    Member,
    Ordered,
    Parallel,
    Process,
    Restart,
    RestartEvent,
    RestartType,
    Role,
    State,
    Strategy,
)
from tests.groups.transitions import known_transitions

from .supervised import AT_ONCE, SLOWLY, Troupe, at_once, ended, heard, supervised

__all__ = ["known_transitions"]


def states(group: Process) -> str:
    """The first letter of each member's state, but for `x` where it is backing off."""
    return "".join("x" if each.state is State.BACKOFF else each.state.value[0] for each in group.children)


@pytest.mark.contract("V11")
async def test_v11_rest_goes_on_with_the_member_whose_restart_failed() -> None:
    """Those before it stay up, and those after it wait until it is."""
    troupe = Troupe("abcd")
    troupe["c"].starts = [None, OSError("1"), OSError("2")]
    async with supervised(Ordered(troupe.members(Restart()), strategy=Strategy.REST, restart=AT_ONCE)):
        await troupe.news()
        troupe["b"].crash()
        assert await troupe.news() == [
            "crash b",
            "down d",
            "down c",
            "up b",
            "start_failed c",
            "start_failed c",
            "up c",
            "up d",
        ]


@pytest.mark.contract("V12")
async def test_v12_all_starts_over_with_everything() -> None:
    """A failure on the way stops what is up again, in reverse, and the whole group is tried again."""
    troupe = Troupe("abc")
    troupe["c"].starts = [None, OSError("1")]
    async with supervised(Ordered(troupe.members(Restart()), strategy=Strategy.ALL, restart=AT_ONCE)):
        await troupe.news()
        troupe["b"].crash()
        assert await troupe.news() == [
            "crash b",
            "down c",
            "down a",
            "up a",
            "up b",
            "start_failed c",
            "down b",
            "down a",
            "up a",
            "up b",
            "up c",
        ]


@pytest.mark.contract("V13")
async def test_v13_between_two_tries_the_group_does_what_it_is_told() -> None:
    """The member is backing off, its siblings can be operated on, and a stop by hand ends the tries for good."""
    troupe = Troupe("ab")
    async with supervised(Parallel(troupe.members(SLOWLY))) as group:
        troupe["a"].starts = [OSError("still down")] * 3
        troupe["a"].crash()
        await trio.sleep(1.5)
        assert (states(group), group["a"].restarts) == ("xr", 1)
        assert str(group["a"].last_error) == "still down"
        await group.restart("b")
        assert (await group.stop("a")).ok
        await trio.sleep(100)
        assert (states(group), len(troupe["a"].begun), trio.current_time()) == ("sr", 2, 101.5)


@pytest.mark.contract("V13")
async def test_v13_what_backs_off_is_started_at_once_by_hand() -> None:
    """Who says so knows that it will work now; the delays and the count begin anew."""
    troupe = Troupe("ab")
    async with supervised(Parallel(troupe.members(Restart()))) as group:
        for name, operate in (("a", group.start), ("b", group.restart)):
            troupe[name].crash()
            await wait_all_tasks_blocked()
            assert group[name].state is State.BACKOFF
            now = trio.current_time()
            await operate(name)
            assert trio.current_time() == now
        await trio.sleep(100)
        assert [len(player.begun) for player in troupe] == [2, 2]


@pytest.mark.contract("V14")
async def test_v14_a_delay_that_is_of_no_use_any_more_starts_nothing() -> None:
    """Whoever stopped or started the member meanwhile had the last word."""
    troupe = Troupe("ab")
    async with supervised(Ordered(troupe.members(SLOWLY))) as group:
        troupe["b"].crash()
        await trio.sleep(0.5)
        await group.stop("b")
        await group.start("b")
        await trio.sleep(0.2)
        troupe["b"].crash()
        await trio.sleep(0.4)  # the first delay would be over
        assert group["b"].state is State.BACKOFF
        await trio.sleep(5)
        assert troupe["b"].begun == [0, 0.5, 1.7]


@pytest.mark.contract("V15")
async def test_v15_an_earlier_members_crash_takes_in_what_waits_already() -> None:
    """Their delays and their restarts become one."""
    troupe = Troupe("abc")
    async with supervised(Ordered(troupe.members(Restart()), strategy=Strategy.REST, restart=SLOWLY)) as group:
        await troupe.news()
        troupe["c"].crash()
        await trio.sleep(0.5)
        troupe["a"].crash()
        await trio.sleep(0.75)
        assert states(group) == "xxx"
        await trio.sleep(10)
        assert await troupe.news() == ["crash c", "crash a", "down b", "up a", "up b", "up c"]
        assert [player.begun for player in troupe] == [[0, 1.5], [0, 1.5], [0, 1.5]]


@pytest.mark.contract("V15")
async def test_v15_what_has_nothing_to_do_with_it_keeps_its_own_delay() -> None:
    """Two branches of a graph that do not touch do not wait for each other."""
    troupe = Troupe("abcd")
    a, b, c, d = troupe
    members = [
        Member("a", a, restart=Restart()),
        Member("b", b, after="a", restart=Restart()),
        Member("c", c, restart=Restart()),
        Member("d", d, after="c", restart=Restart()),
    ]
    async with supervised(Graph(members, strategy=Strategy.REST, restart=SLOWLY)):
        a.crash()
        await trio.sleep(0.5)
        c.crash()
        await trio.sleep(10)
        assert [player.begun for player in troupe] == [[0, 1], [0, 1], [0, 1.5], [0, 1.5]]


@pytest.mark.contract("V16")
async def test_v16_two_crashes_at_once_are_one_restart_of_all() -> None:
    """Both are told, and one restart is counted."""
    troupe = Troupe("abc")
    async with supervised(Parallel(troupe.members(Restart()), strategy=Strategy.ALL, restart=at_once(limit=1))) as group:
        troupe["a"].crash()
        troupe["c"].crash()
        await wait_all_tasks_blocked()
        assert states(group) == "rrr"
        assert [player.begun for player in troupe] == [[0, 0]] * 3
        events = await heard(group)
    assert len([event for event in events if isinstance(event, RestartEvent)]) == 1
    errors = [str(event.exit.error) for event in events if isinstance(event, ExitEvent) and event.exit.error]
    assert sorted(errors) == ["a broke", "c broke"]


@pytest.mark.contract("V16")
async def test_v16_two_crashes_at_once_are_two_restarts_of_one() -> None:
    """Each is counted by the member that it concerns, so neither uses up what the other has."""
    troupe = Troupe("ab")
    async with supervised(Parallel(troupe.members(at_once(limit=1)))) as group:
        troupe["a"].crash()
        troupe["b"].crash()
        await wait_all_tasks_blocked()
        assert states(group) == "rr"
        events = [event for event in await heard(group) if isinstance(event, RestartEvent)]
        assert [(event.used, event.limit) for event in events] == [(1, 1), (1, 1)]


@pytest.mark.contract("W7")
async def test_w07_there_is_a_group_for_each_strategy_and_one_for_none() -> None:
    """ONE, ALL and REST; without a policy the first exit ends the group."""
    expected = {
        Strategy.ONE: ["crash b", "up b"],
        Strategy.ALL: ["crash b", "down c", "down a", "up a", "up b", "up c"],
        Strategy.REST: ["crash b", "down c", "up b", "up c"],
    }
    for strategy, news in expected.items():
        troupe = Troupe("abc")
        group = (
            Ordered(troupe.members(AT_ONCE))
            if strategy is Strategy.ONE
            else Ordered(troupe.members(Restart()), strategy=strategy, restart=AT_ONCE)
        )
        async with supervised(group):
            await troupe.news()
            troupe["b"].crash()
            assert await troupe.news() == news
    troupe = Troupe("abc")
    async with supervised(Ordered(troupe.members())) as process:
        await troupe.news()
        troupe["b"].crash()
        await ended(process)
    assert troupe.log == ["crash b", "down c", "down a"]


@pytest.mark.contract("W7")
async def test_w07_rest_is_what_depends_on_it() -> None:
    """In a Graph that goes along the edges, whatever the order of the list; what is beside it stays up."""
    troupe = Troupe("abcde")
    after = {"a": (), "b": "e", "c": "b", "d": (), "e": "a"}
    members = [Member(name, troupe[name], after=after[name], restart=Restart()) for name in "abcde"]
    async with supervised(Graph(members, strategy=Strategy.REST, restart=AT_ONCE)):
        await troupe.news()
        troupe["e"].crash()
        assert await troupe.news() == ["crash e", "down c", "down b", "up e", "up b", "up c"]


@pytest.mark.contract("W7")
def test_w07_a_strategy_that_would_mean_nothing_is_refused() -> None:
    """Where nobody restarts, and a group's own policy where it does not count."""
    troupe = Troupe("ab")
    with pytest.raises(ValueError, match="means nothing where no member restarts"):
        Ordered(troupe.members(Restart(RestartType.TEMPORARY)), strategy=Strategy.ALL)
    with pytest.raises(ValueError, match=r"means nothing under Strategy\.ONE"):
        Ordered(troupe.members(AT_ONCE), restart=AT_ONCE)


@pytest.mark.contract("W8")
async def test_w08_who_is_slow_holds_up_nobody_who_does_not_depend_on_it() -> None:
    """Members of a Parallel start, restart and stop beside each other."""
    troupe = Troupe("abcd")
    for player in troupe:
        player.opening = player.closing = 10
    async with supervised(Parallel(troupe.members(AT_ONCE))) as group:
        await group.wait_ready()
        assert trio.current_time() == 10
        for player in troupe:
            player.crash()
        await wait_all_tasks_blocked()
        for process in group.children:
            await process.wait_ready()
        assert trio.current_time() == 20
    assert [player.ended[-1] for player in troupe] == [30] * 4


@pytest.mark.contract("W16")
async def test_w16_who_uses_a_resource_stops_before_the_member_that_owns_it() -> None:
    """On a stop, a cancellation and a restart alike; what it is held in is there across its restarts, and until after its end."""
    for how in ("stop", "cancel", "restart"):
        troupe = Troupe(["pool", "user", "other"])
        members = [
            Member("user", troupe["user"], after="pool", role=Role.SERVICE, restart=Restart()),
            Member("pool", troupe["pool"], restart=Restart()),
            Member("other", troupe["other"], after="user", restart=Restart()),
        ]
        async with supervised(Graph(members, strategy=Strategy.REST, restart=AT_ONCE)) as group:
            await troupe.news()
            if how == "stop":
                group.signal(15)
            elif how == "cancel":
                group.kill()
            else:
                await group.restart("pool", cascade=True)
            news = await troupe.news()
        gone = [each.split()[1] for each in news if not each.startswith("up")]
        assert gone == ["other", "user", "pool"]
