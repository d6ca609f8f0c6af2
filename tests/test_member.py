"""Members: what a group takes, and what it refuses with an error that names the member and the fix."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio

import grouper
from grouper import Dynamic, Graph, Member, Ordered, Parallel, Proxy, QueueOrdered, Role, Signals, restart_on
from grouper.member import GRACE, as_member, as_members, grace_of


async def service(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
    task_status.started("up")
    await signals.wait()


async def other(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None: ...


class Patient:
    grace = 30.0

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None: ...


# What is refused


member: Any = Member  # what follows is wrong on purpose
members: Any = as_members
BAD: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "name is no string": (lambda: member(3, service), TypeError, "a member's name is a string, not 3"),
    "name is empty": (lambda: member("", service), ValueError, "member '': a name has at least one character"),
    "name is a path": (
        lambda: member("web/api", service),
        ValueError,
        "member 'web/api': .* no \"/\", which separates names in a path",
    ),
    "class": (lambda: member("db", Patient), TypeError, r"^member 'db': Patient is a class: give an instance"),
    "no runner": (lambda: member("db", 3), TypeError, "^member 'db': 3 is not a runner: a runner has `async def run"),
    "role is a string": (
        lambda: member("db", service, role="job"),
        TypeError,
        "member 'db': role='job' is not one of Role.SERVICE",
    ),
    "grace below 0": (lambda: member("db", service, grace=-1), ValueError, "member 'db': grace=-1 is not 0 or more seconds"),
    "grace not a number": (
        lambda: member("db", service, grace=math.nan),
        ValueError,
        r"member 'db': grace=nan .*\(math.inf is allowed\)",
    ),
    "grace is a string": (lambda: member("db", service, grace="1"), TypeError, "member 'db': grace='1' is not a number of seconds"),
    "grace is a bool": (lambda: member("db", service, grace=True), TypeError, "member 'db': grace=True is not a number"),
    "ready_within is None": (lambda: member("db", service, ready_within=None), TypeError, "member 'db': ready_within=None is not"),
    "ready_within is 0": (
        lambda: member("db", service, ready_within=0),
        ValueError,
        "member 'db': ready_within=0 .* use a positive number",
    ),
    "ready_within below 0": (
        lambda: member("db", service, ready_within=-2),
        ValueError,
        "member 'db': ready_within=-2 is not 0 or more",
    ),
    "members is one member": (lambda: members(member("db", service)), TypeError, r"a list or a mapping, .* write \[Member\("),
    "members is a string": (lambda: members("db"), TypeError, "members are a list or a mapping, not 'db'"),
    "members is a runner": (lambda: members(Patient()), TypeError, "members are a list or a mapping, not <.*Patient"),
    "member is a runner": (lambda: members([service]), TypeError, r"is not a member: give Member\(name, runner\), a pair"),
    "member is a triple": (lambda: members([("db", service, ())]), TypeError, "'db'.* is not a member: give"),
    "member is a list": (lambda: members([["db", service]]), TypeError, "'db'.* is not a member: give"),
    "pair the other way round": (lambda: members([(service, "db")]), TypeError, "a member's name is a string, not <function"),
}


@pytest.mark.parametrize(("make", "error", "text"), BAD.values(), ids=BAD)
def test_bad_input_is_refused(make: Callable[[], object], error: type[Exception], text: str) -> None:
    """Each is refused when it is made, with an error that names the member, where it has a name, and the fix."""
    with pytest.raises(error, match=text):
        make()


def test_function_that_was_called_already_is_refused() -> None:
    """A coroutine is not a runner: the error names the member and tells to leave the call out."""
    coroutine = service(Signals(), task_status=trio.TASK_STATUS_IGNORED)
    with pytest.raises(TypeError, match=r"member 'db': service\(\) was called already: give the function itself"):
        Member("db", coroutine)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    coroutine.close()


GROUPS: dict[str, Callable[[Any], object]] = {
    "Ordered": Ordered,
    "QueueOrdered": QueueOrdered,
    "Parallel": Parallel,
    "Graph": Graph,
}


@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_duplicate_names_are_refused(group: Callable[[Any], object]) -> None:
    """Every group lists each duplicate once, when it is made."""
    with pytest.raises(grouper.DuplicateNames) as caught:
        group([("web", service), ("db", service), ("db", other), ("web", service), ("ok", service), ("db", service)])
    assert caught.value.names == ("web", "db")


# What is taken


@pytest.mark.parametrize("seconds", [0, 0.5, 10, math.inf])
def test_grace_is_seconds(seconds: float) -> None:
    """Any number that is 0 or more, the infinite one included."""
    assert grace_of(Member("db", service, grace=seconds)) == seconds


def test_defaults() -> None:
    """A member of which nothing is said is a service without dependencies that may take its time to start."""
    member = Member("db", service)
    assert (member.after, member.role, member.grace, member.ready_within) == ((), Role.SERVICE, None, math.inf)


@pytest.mark.parametrize(("given", "after"), [("db", ("db",)), (["db", "cache"], ("db", "cache")), (iter("ab"), ("a", "b"))])
def test_after_is_a_tuple(given: Any, after: tuple[str, ...]) -> None:
    """One name may be given as it is; it is not taken apart into letters."""
    assert Member("web", service, after=given).after == after


def test_repr_is_shallow() -> None:
    """The runner, which may be a tree, is left out."""
    assert repr(Member("web", Ordered([("api", service)]))) == (
        "Member(name='web', after=(), role=<Role.SERVICE: 'service'>, grace=None, ready_within=inf, restart=None)"
    )


def test_members_are_compared_by_identity() -> None:
    """A description is a thing, not a value: its runner has no equality."""
    assert Member("db", service) != Member("db", service)


def test_member_cannot_be_changed() -> None:
    """A policy is fixed when it is made."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Member("db", service).grace = 3  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


WAYS: dict[str, Callable[[], Any]] = {
    "members": lambda: [Member("db", service), Member("web", other)],
    "pairs": lambda: [("db", service), ("web", other)],
    "pairs with members": lambda: [("db", Member("x", service)), ("web", Member("y", other))],
    "mapping": lambda: {"db": service, "web": other},
    "mapping of members": lambda: {"db": Member("x", service), "web": Member("y", other)},
    "mixed, with None": lambda: [None, Member("db", service), None, ("web", other)],
    "mapping with None": lambda: {"nobody": None, "db": service, "web": other, "either": None},
    "generator": lambda: (pair for pair in [("db", service), ("web", other)]),
}


@pytest.mark.parametrize("given", WAYS.values(), ids=WAYS)
def test_ways_to_give_members(given: Callable[[], Any]) -> None:
    """Lists, generators and mappings of members, pairs and runners mean the same; None is skipped."""
    members = as_members(given())
    names = [member.name for member in members]
    runners = [member.runner.runner if isinstance(member.runner, Member) else member.runner for member in members]
    assert (names, runners) == (["db", "web"], [service, other])


def test_member_in_a_pair_keeps_its_policy() -> None:
    """Only the name is the pair's."""
    member = as_member(("db", Member("x", service, after="y", role=Role.OPTIONAL, grace=3, ready_within=4)))
    assert (member.name, member.after, member.role, member.grace, member.ready_within) == ("db", ("y",), Role.OPTIONAL, 3, 4)


async def test_member_is_a_runner() -> None:
    """What its runner does, the member does."""
    async with grouper.invoke(Member("db", service)) as process:
        assert process.value == "up"


# What the runner says about itself


GRACES: dict[str, tuple[Member, float]] = {
    "default": (Member("a", service), GRACE),
    "the runner's": (Member("a", Patient()), 30.0),
    "the member's before the runner's": (Member("a", Patient(), grace=1), 1),
    "0 is not none": (Member("a", Patient(), grace=0), 0),
    "of what a wrapper runs": (Member("a", restart_on(Patient(), OSError)), 30.0),
    "of a member as a runner": (Member("a", Member("b", service, grace=2)), 2),
    "of a group": (Member("a", Ordered([])), math.inf),
    "of a dynamic group": (Member("a", Dynamic()), math.inf),
    "of a wrapped group": (Member("a", Proxy(Signals(), Ordered([]))), math.inf),
}


@pytest.mark.parametrize(("member", "grace"), GRACES.values(), ids=GRACES)
def test_grace(member: Member, grace: float) -> None:
    """The member's own, else its runner's, also through wrappers, else 10 seconds."""
    assert grace_of(member) == grace


def jobs(count: int = 2) -> Parallel:
    return Parallel([Member(str(number), service, role=Role.JOB) for number in range(count)])


ROLES: dict[str, tuple[Member, Role]] = {
    "of jobs alone": (Member("a", jobs()), Role.JOB),
    "said to be a service": (Member("a", jobs(), role=Role.SERVICE), Role.JOB),
    "said to be optional": (Member("a", jobs(), role=Role.OPTIONAL), Role.OPTIONAL),
    "of groups of jobs": (Member("a", Ordered([("b", jobs()), ("c", jobs())])), Role.JOB),
    "wrapped": (Member("a", Proxy(Signals(), jobs())), Role.JOB),
    "one service among the jobs": (Member("a", Parallel([("b", jobs()), ("c", service)])), Role.SERVICE),
    "one optional among the jobs": (Member("a", Parallel([("b", jobs()), Member("c", service, role=Role.OPTIONAL)])), Role.SERVICE),
    "empty": (Member("a", jobs(0)), Role.SERVICE),
    "dynamic": (Member("a", Dynamic()), Role.SERVICE),
}


@pytest.mark.parametrize(("member", "role"), ROLES.values(), ids=ROLES)
def test_group_of_jobs_alone_is_a_job(member: Member, role: Role) -> None:
    """It ends when its jobs have, and its member says so; any other group is what the member says."""
    assert member.role is role


async def test_what_waits_for_a_group_of_jobs_starts_when_it_has_ended() -> None:
    """In an ordered group a group of jobs is a step: the next starts after it, and its end stops nobody."""
    ran: list[str] = []

    async def job(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        await trio.sleep(1)
        ran.append("job")

    async def server(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        ran.append("server")
        task_status.started()
        await signals.wait()

    group = Ordered([("migrations", Parallel([Member("one", job, role=Role.JOB)])), ("server", server)])
    async with grouper.invoke(group) as process:
        assert ran == ["job", "server"]
        process.signal(signal.SIGTERM)
        assert (await process.wait()).ok
