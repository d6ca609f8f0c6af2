"""The four groups with fixed members: what they take, and how they start and stop."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import grouper
from grouper import Dynamic, ErrorTrace, Graph, Member, Ordered, Parallel, QueueOrdered, Role, Signals, State
from grouper.groups.static import StaticGroup

from .members import Cast, Puppet, child, deaf, fails, fails_later, fails_stopping, service, watched

TERM, INT, QUIT, HUP, USR1, KILL = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGQUIT),
    *(signal.SIGHUP, signal.SIGUSR1, signal.SIGKILL),
)
GROUPS: dict[str, Callable[..., StaticGroup]] = {
    "Ordered": Ordered,
    "QueueOrdered": QueueOrdered,
    "Parallel": Parallel,
    "Graph": Graph,
}
each_group = pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)


def dynamic(members: list[Member], **policy: Any) -> Dynamic:
    """A Dynamic group, made as the others are."""
    return Dynamic(**policy)


ALL: dict[str, Callable[..., Any]] = {**GROUPS, "Dynamic": dynamic}


# What is refused


POLICIES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "termination signal that stops nobody": (
        {"termination_signal": HUP},
        ValueError,
        "termination_signal=SIGHUP does not stop a member: use SIGTERM, SIGINT or SIGQUIT, or None to let the others go on",
    ),
    "SIGKILL": ({"termination_signal": KILL}, ValueError, "termination_signal=SIGKILL does not stop a member"),
    "a real-time signal": ({"termination_signal": 35}, ValueError, r"termination_signal=SIGRTMIN\+1 does not"),
    "termination signal is a string": ({"termination_signal": "TERM"}, ValueError, "termination_signal='TERM' does not stop"),
    "cancel_grace below 0": ({"cancel_grace": -1.0}, ValueError, "cancel_grace=-1.0 is not 0 or more seconds"),
    "cancel_grace is None": ({"cancel_grace": None}, TypeError, "cancel_grace=None is not a number of seconds"),
    "event_buffer below 0": ({"event_buffer": -1}, ValueError, "event_buffer=-1 is not a number of events, 0 or more"),
    "event_buffer is a float": ({"event_buffer": 1.0}, ValueError, "event_buffer=1.0 is not a number of events"),
    "event_buffer is a bool": ({"event_buffer": True}, ValueError, "event_buffer=True is not a number of events"),
}


@pytest.mark.parametrize(("policy", "error", "text"), POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("name", ALL)
def test_bad_policy_is_refused(name: str, policy: dict[str, Any], error: type[Exception], text: str) -> None:
    """When the group is made, with an error that names the kind of group and the fix."""
    with pytest.raises(error, match=f"^{name}: {text}"):
        ALL[name]([], **policy)


@pytest.mark.parametrize("name", ["Ordered", "QueueOrdered", "Parallel"])
def test_order_of_its_own_allows_no_after(name: str) -> None:
    """Only a Graph goes by `after`."""
    with pytest.raises(ValueError, match=rf"member 'web' is after \('db',\), but {name} has an order of its own: use a Graph"):
        GROUPS[name]([("db", service), Member("web", service, after="db")])


@each_group
def test_members_are_checked(group: Callable[..., StaticGroup]) -> None:
    """What is no member is refused when the group is made."""
    with pytest.raises(TypeError, match="is not a member"):
        group([service])


# A description


@each_group
def test_repr_is_shallow(group: Callable[..., StaticGroup]) -> None:
    """A tree's text does not grow with the tree."""
    text = repr(group([("a", service), ("b", service)]))
    assert "members=<2 members>" in text
    assert "service" not in text


@each_group
def test_group_cannot_be_changed(group: Callable[..., StaticGroup]) -> None:
    """All running state is elsewhere."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        group([]).cancel_grace = 1.0  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


@each_group
async def test_group_can_run_again(group: Callable[..., StaticGroup]) -> None:
    """Also after a failure: a run leaves nothing behind in it."""
    cast = Cast("ab", ready=False)
    tree = group(cast.pairs())
    for _ in range(2):
        async with watched(tree) as root:
            cast["a"].go.set()
            cast["b"].go.set()
            await root.wait_ready()
            cast["b"].fail(OSError())
            assert not (await root.wait()).ok
        for puppet in cast.puppets.values():
            puppet.end = trio.Event()
    assert cast.log.count("+a") == cast.log.count("+b") == 2


@each_group
async def test_group_can_run_twice_at_once(group: Callable[..., StaticGroup]) -> None:
    """The runs know nothing of each other."""
    tree = group([("a", service), ("b", service)])
    async with grouper.invoke(tree) as one, grouper.invoke(tree) as other:
        one.signal(TERM)
        await one.wait()
        assert [each.state for each in other.children] == [State.READY, State.READY]


def test_base_has_no_shape() -> None:
    """What is no kind of group by itself says so."""
    with pytest.raises(NotImplementedError):
        StaticGroup([])


# Start and stop


async def start(cast: Cast, group: Callable[..., StaticGroup]) -> list[list[str]]:
    """What starts first, and after each member's getting ready in turn."""
    steps: list[list[str]] = []
    async with watched(group(cast.pairs())):
        steps.append(await cast.news())
        for puppet in cast.puppets.values():
            puppet.go.set()
            steps.append(await cast.news())
    return steps


STARTS: dict[str, tuple[Callable[..., StaticGroup], list[list[str]]]] = {
    "Ordered": (Ordered, [["+a"], ["+b"], ["+c"], []]),
    "QueueOrdered": (QueueOrdered, [["+a"], ["+b"], ["+c"], []]),
}


@pytest.mark.parametrize(("group", "steps"), STARTS.values(), ids=STARTS)
async def test_start_in_a_chain(group: Callable[..., StaticGroup], steps: list[list[str]]) -> None:
    """Each starts when the one before it is ready."""
    assert await start(Cast("abc", ready=False), group) == steps


@pytest.mark.parametrize("group", [Parallel, Graph])
async def test_start_together(group: Callable[..., StaticGroup]) -> None:
    """Members that are after nobody all start at once."""
    first, *rest = await start(Cast("abc", ready=False), group)
    assert sorted(first) == ["+a", "+b", "+c"]
    assert rest == [[], [], []]


async def stop(cast: Cast, tree: StaticGroup, number: int = TERM) -> list[list[str]]:
    """Who is told to stop first, and after each end; the one told first ends first."""
    steps: list[list[str]] = []
    async with watched(tree) as root:
        await cast.news()
        root.signal(number)
        told: list[str] = []
        while root.exit is None:
            news = [each for each in await cast.news() if not each.startswith("-")]
            steps.append(news)
            told += [each.split()[1] for each in news]
            if not told:
                break
            cast[told.pop(0)].end.set()
            await wait_all_tasks_blocked()
    return steps


@pytest.mark.parametrize("number", [TERM, INT, QUIT])
async def test_ordered_stops_in_reverse_with_the_signal_it_got(number: int) -> None:
    """Each is told after the one after it has ended."""
    cast, name = Cast("abc", polite=False), signal.Signals(number).name
    assert await stop(cast, Ordered(cast.pairs()), number) == [[f"{name} c"], [f"{name} b"], [f"{name} a"]]


async def test_queue_ordered_stops_in_the_order_of_its_start() -> None:
    """The first started is the first told."""
    cast = Cast("abc", polite=False)
    assert await stop(cast, QueueOrdered(cast.pairs())) == [["SIGTERM a"], ["SIGTERM b"], ["SIGTERM c"]]


async def test_parallel_stops_together() -> None:
    """All are told at once."""
    cast = Cast("abc", polite=False)
    first, *rest = await stop(cast, Parallel(cast.pairs()))
    assert sorted(first) == ["SIGTERM a", "SIGTERM b", "SIGTERM c"]
    assert rest == [[], []]


DIAMOND = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}


def diamond(cast: Cast) -> Graph:
    return Graph([Member(name, cast[name], after=after) for name, after in DIAMOND.items()])


async def test_graph_starts_each_when_all_it_is_after_are_ready() -> None:
    """One of two is not enough."""
    cast = Cast("abcd", ready=False)
    async with watched(diamond(cast)) as root:
        steps = [await cast.news()]
        for name in "abc":
            cast[name].go.set()
            steps.append(sorted(await cast.news()))
        assert steps == [["+a"], ["+b", "+c"], [], ["+d"]]
        assert root.ready_at is None
        cast["d"].go.set()
        await root.wait_ready()


async def test_graph_stops_each_when_all_that_are_after_it_have_ended() -> None:
    """The walk back: d, then b and c together, then a."""
    cast = Cast("abcd", polite=False)
    first, both, *rest = await stop(cast, diamond(cast))
    assert first == ["SIGTERM d"]
    assert sorted(both) == ["SIGTERM b", "SIGTERM c"]
    assert rest == [[], ["SIGTERM a"]]


async def test_early_exit_does_not_let_the_stop_jump_over_it() -> None:
    """A member that ended by itself still keeps its dependencies up for those after it, transitively."""
    cast = Cast("abc", polite=False)
    async with watched(Ordered([Member(name, puppet, role=Role.OPTIONAL) for name, puppet in cast.pairs()])) as root:
        cast["b"].end.set()
        await cast.news()
        root.signal(TERM)
        assert await cast.news() == ["SIGTERM c"]
        cast["c"].end.set()
        assert await cast.news() == ["-c", "SIGTERM a"]
        cast["a"].end.set()


async def test_those_that_did_not_start_do_not_keep_the_stop() -> None:
    """A group that is stopped while it starts stops what it has started."""
    cast = Cast("abc", ready=False)
    async with watched(Ordered(cast.pairs())) as root:
        cast["a"].go.set()
        await cast.news()
        root.signal(TERM)
        await root.wait()
        assert [each for each in cast.log if each.startswith("SIG")] == ["SIGTERM b", "SIGTERM a"]
        assert "+c" not in cast.log


async def test_nobody_starts_once_stopping_began() -> None:
    """A member that gets ready while it is being stopped starts nobody."""
    cast = Cast("ab", ready=False, polite=False)
    async with watched(Ordered(cast.pairs())) as root:
        root.signal(TERM)
        await wait_all_tasks_blocked()
        cast["a"].go.set()
        await wait_all_tasks_blocked()
        cast["a"].end.set()
        await root.wait()
    assert "+b" not in cast.log


# Ready


@each_group
async def test_group_is_ready_when_all_its_members_are(group: Callable[..., StaticGroup]) -> None:
    """Not before the last."""
    cast = Cast("ab", ready=False)
    async with watched(group(cast.pairs())) as root:
        cast["a"].go.set()
        await wait_all_tasks_blocked()
        assert root.ready_at is None
        cast["b"].go.set()
        await wait_all_tasks_blocked()
        assert root.state is State.READY


@each_group
async def test_empty_group_is_ready_at_once_and_stays_up(group: Callable[..., StaticGroup]) -> None:
    """Until it is told to stop."""
    async with watched(group([])) as root:
        assert root.state is State.READY
        root.signal(TERM)
        assert (await root.wait()).ok


# Signals


async def test_pass_through_signals_go_to_every_running_member() -> None:
    """In the order sent; the group stays up, and what has not started yet hears nothing."""
    cast = Cast("abc", ready=False)
    async with watched(Ordered(cast.pairs())) as root:
        cast["a"].go.set()
        await cast.news()
        root.signal(HUP)
        root.signal(USR1)
        news = await cast.news()
        assert [each for each in news if each.endswith(" a")] == ["SIGHUP a", "SIGUSR1 a"]
        assert [each for each in news if each.endswith(" b")] == ["SIGHUP b", "SIGUSR1 b"]
        assert len(news) == 4
        assert root.exit is None


async def test_further_stop_signal_goes_to_those_being_stopped_and_is_what_later_ones_get() -> None:
    """The newest counts."""
    cast = Cast("ab", polite=False)
    async with watched(Ordered(cast.pairs())) as root:
        await cast.news()
        root.signal(TERM)
        await wait_all_tasks_blocked()
        root.signal(INT)
        assert await cast.news() == ["SIGTERM b", "SIGINT b"]
        cast["b"].end.set()
        assert await cast.news() == ["-b", "SIGINT a"]
        cast["a"].end.set()


@pytest.mark.parametrize("number", [TERM, INT, QUIT])
async def test_others_get_the_termination_signal_when_one_has_exited(number: int) -> None:
    """What ends a group by itself is told with the signal that the group was given for that."""
    cast = Cast("ab")
    async with watched(Ordered(cast.pairs(), termination_signal=number)) as root:
        cast["b"].end.set()
        await root.wait()
    assert cast.log[-2:] == [f"{signal.Signals(number).name} a", "-a"]


@each_group
async def test_group_with_a_stop_signal_pending_starts_nobody(group: Callable[..., StaticGroup]) -> None:
    """What was told to stop before it ran returns, and was never ready."""
    cast, signals = Cast("ab"), Signals()
    signals.send(TERM)
    ready: list[object] = []

    class Status:
        def started(self, value: object = None) -> None:
            ready.append(value)

    await group(cast.pairs()).run(signals, task_status=Status())
    assert (cast.log, ready) == ([], [])


async def test_group_whose_stop_signal_was_taken_starts_nobody() -> None:
    """`received` counts, also where the signal was taken by somebody else."""
    cast, signals = Cast("ab"), Signals()
    signals.send(TERM)
    await anext(signals)
    await Ordered(cast.pairs()).run(signals, task_status=trio.TASK_STATUS_IGNORED)
    assert cast.log == []


async def test_pass_through_signal_pending_at_the_start_reaches_the_first() -> None:
    """What was sent before the group ran is not lost to those that run by then."""
    cast, signals = Cast("a"), Signals()
    signals.send(HUP)
    async with trio.open_nursery() as nursery:
        await nursery.start(Ordered(cast.pairs()).run, signals)
        assert await cast.news() == ["+a", "SIGHUP a"]
        signals.send(TERM)


async def test_group_can_be_started_in_a_nursery() -> None:
    """`nursery.start(group.run, Signals())` waits until it is ready."""
    signals = Signals()
    async with trio.open_nursery() as nursery:
        await nursery.start(Ordered([("a", service)]).run, signals)
        signals.send(TERM)


async def test_second_group_on_the_same_signals_is_an_error() -> None:
    """While the first one runs; it goes on."""
    signals = Signals()
    async with trio.open_nursery() as nursery:
        await nursery.start(Ordered([("a", service)]).run, signals)
        with pytest.raises(RuntimeError, match="give each running group Signals of its own"):
            await Ordered([("a", service)]).run(signals, task_status=trio.TASK_STATUS_IGNORED)
        signals.send(TERM)


async def test_signals_that_a_group_did_not_act_on_are_left() -> None:
    """What is sent in the step in which the group ends is there for the next reader."""
    signals = Signals()
    async with trio.open_nursery() as nursery:
        await nursery.start(Ordered([("a", service)]).run, signals)
        signals.send(TERM)
    signals.send(HUP)
    assert await anext(signals) == HUP


async def test_sigkill_to_a_group_kills_its_members_in_stop_order() -> None:
    """They have failed by it, since nobody was stopping them."""
    cast, signals = Cast("abc"), Signals()

    class Status:
        def started(self, value: object = None) -> None:
            signals.send(KILL)

    with pytest.raises(ErrorTrace) as caught:
        await Ordered(cast.pairs()).run(signals, task_status=Status())
    assert [str(error) for error in caught.value.exceptions] == [
        f"member '{name}' was killed by SIGKILL to its group" for name in "cba"
    ]
    assert cast.log[-3:] == ["!c", "!b", "!a"]


async def test_sigkill_while_stopping_fails_nobody() -> None:
    """It only hastens the stop."""
    cast, signals = Cast("ab", polite=False), Signals()
    async with trio.open_nursery() as nursery:
        await nursery.start(Ordered(cast.pairs()).run, signals)
        signals.send(TERM)
        await wait_all_tasks_blocked()
        signals.send(KILL)
    assert cast.log[-2:] == ["!b", "!a"]


# Cancellation


@each_group
async def test_cancelled_group_kills_its_members_and_goes_on(group: Callable[..., StaticGroup]) -> None:
    """The cancellation passes when the last has ended."""
    cast = Cast("ab")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(group(cast.pairs()).run, Signals())
            scope.cancel()
    assert scope.cancelled_caught
    assert sorted(cast.log[-2:]) == ["!a", "!b"]


async def test_cancelled_group_kills_in_stop_order_and_waits_for_each() -> None:
    """Also members that clean up under a shield."""
    log: list[str] = []

    class Slow:
        def __init__(self, name: str) -> None:
            self.name = name

        async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                log.append(f"begin {self.name}")
                with trio.CancelScope(shield=True):
                    await trio.sleep(1)
                log.append(f"end {self.name}")

    with trio.move_on_after(5):
        await Ordered([("a", Slow("a")), ("b", Slow("b"))]).run(Signals(), task_status=trio.TASK_STATUS_IGNORED)
    assert log == ["begin b", "end b", "begin a", "end a"]


async def test_failure_wins_over_the_cancellation() -> None:
    """What a member raised while it was killed is not lost."""
    with trio.move_on_after(5) as scope, pytest.raises(ErrorTrace):
        await Ordered([("a", fails_stopping)]).run(Signals(), task_status=trio.TASK_STATUS_IGNORED)
    assert not scope.cancelled_caught


async def test_cancel_grace_stops_politely_first() -> None:
    """A group that opted in tells its members to stop, with its termination signal."""
    cast = Cast("ab")
    with trio.move_on_after(5) as scope:
        await Ordered(cast.pairs(), cancel_grace=3, termination_signal=INT).run(Signals(), task_status=trio.TASK_STATUS_IGNORED)
    assert scope.cancelled_caught
    assert cast.log[2:] == ["SIGINT b", "-b", "SIGINT a", "-a"]


async def test_cancel_grace_ends_in_a_kill() -> None:
    """What has not stopped by then is killed, in order, and has not failed."""
    cast = Cast("ab", polite=False)
    begin = trio.current_time()
    with trio.move_on_after(5) as scope:
        await Ordered(cast.pairs(), cancel_grace=3).run(Signals(), task_status=trio.TASK_STATUS_IGNORED)
    assert scope.cancelled_caught
    assert cast.log[2:] == ["SIGTERM b", "!b", "!a"]
    assert trio.current_time() == begin + 5 + 3


async def test_cancel_grace_without_a_termination_signal_says_sigterm() -> None:
    """`None` is about exits of members."""
    cast = Cast("a")
    with trio.move_on_after(5):
        await Parallel(cast.pairs(), cancel_grace=3, termination_signal=None).run(Signals(), task_status=trio.TASK_STATUS_IGNORED)
    assert cast.log[1:] == ["SIGTERM a", "-a"]


# Failures


async def test_group_raises_once_at_the_end() -> None:
    """The trace has the failures in the order in which they happened, and the exits of all that were started."""
    members = [("fine", service), ("later", fails_later), ("clumsy", fails_stopping)]
    async with watched(Parallel(members)) as root:
        error = (await root.wait()).error
        assert isinstance(error, ErrorTrace)
        assert [str(each) for each in error.exceptions] == ["gone", "while stopping"]
        assert {exit.path for exit in error.exits} == {"fine", "later", "clumsy"}
        assert error.exits[0].path == "later"


async def test_trace_of_a_tree() -> None:
    """Nested groups' traces are in one another, each with its path."""
    async with watched(Ordered([("web", Ordered([("api", fails_later)]))])) as root:
        error = (await root.wait()).error
    assert isinstance(error, ErrorTrace)
    (inner,) = error.exceptions
    assert isinstance(inner, ErrorTrace)
    assert (error.path, inner.path, [exit.path for exit in inner.exits]) == ("", "web", ["web/api"])
    assert str(error) == "1 of 1 members failed:\n  web/api: OSError: gone  <- first"


async def test_group_outside_a_tree_raises_its_trace_bare() -> None:
    """No nursery of the implementation wraps it."""
    with pytest.raises(ErrorTrace):
        await Ordered([("a", fails)]).run(Signals(), task_status=trio.TASK_STATUS_IGNORED)


async def test_outer_group_is_stopped_in_order_by_an_inner_failure() -> None:
    """A failure deep in the tree stops what depends on it first."""
    cast = Cast("ab")
    inner = Puppet("x", cast.log)
    group = Ordered([("a", cast["a"]), ("web", Ordered([("x", inner)])), ("b", cast["b"])])
    async with watched(group) as root:
        await cast.news()
        inner.fail(OSError())
        await root.wait()
    assert cast.log == ["-x", "SIGTERM b", "-b", "SIGTERM a", "-a"]


async def test_deep_tree() -> None:
    """A tree 500 deep starts, stops and fails like any other."""
    group: Any = Ordered([("leaf", Puppet("leaf"))])
    for _ in range(500):
        group = Ordered([("g", group)])
    async with watched(group) as root:
        process = root
        while process.children:
            (process,) = process.children
        assert process.path == "g/" * 500 + "leaf"
        process.kill()
        error = (await root.wait()).error
    assert "leaf: MemberKilled" in str(error)


async def test_members_kill_themselves_in_their_turn() -> None:
    """A killed group kills what is below, and its process has ended when all that has."""
    async with watched(Ordered([Member("web", Ordered([("api", deaf)]), role=Role.OPTIONAL), ("db", service)])) as root:
        web = child(root, "web")
        api = child(web, "api")
        web.kill()
        await web.wait()
        assert api.exit is not None
        assert api.exit.killed
        assert child(root, "db").state is State.READY
