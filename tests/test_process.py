"""The handle of a started runner: its states, its facts, and who may wait for it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Generator
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import grouper
from grouper import ErrorTrace, ExitedBeforeReady, Member, MemberKilled, Ordered, Parallel, Process, Role, Signals, State

from .groups.members import child, deaf, fails, fails_later, never_ready, returns, returns_ready, service, watched

TERM, HUP, KILL = signal.SIGTERM, signal.SIGHUP, signal.SIGKILL


def beside(runner: grouper.Runner | Any, **policy: Any) -> Parallel:
    """A group in which nobody's exit stops the other."""
    return Parallel([Member("a", runner, **policy), ("peer", service)], termination_signal=None)


# States


@attrs.define(eq=False)
class Sampler(trio.abc.Instrument):
    """Keeps the states of the member "a", as they are after each step of any task."""

    root: Process | None = None
    states: list[State] = attrs.field(factory=list[State])

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        for process in self.root.children if self.root is not None else ():
            if process.name == "a" and self.states[-1:] != [process.state]:
                self.states.append(process.state)


WAITING, STARTING, READY, STOPPING, EXITED = State.WAITING, State.STARTING, State.READY, State.STOPPING, State.EXITED
LIVES: dict[str, tuple[Ordered, list[State]]] = {
    "ready, then stopped": (Ordered([Member("a", service)]), [STARTING, READY, STOPPING, EXITED]),
    "stopped before ready": (Ordered([Member("a", never_ready)]), [STARTING, STOPPING, EXITED]),
    "never started": (Ordered([Member("first", never_ready), Member("a", service)]), [WAITING, EXITED]),
    "waited": (Ordered([Member("first", service), Member("a", service)]), [WAITING, STARTING, READY, STOPPING, EXITED]),
    "failed before ready": (Ordered([Member("a", fails)]), [STARTING, EXITED]),
    "failed when ready": (Ordered([Member("a", fails_later)]), [STARTING, READY, EXITED]),
    "ready and gone in one step": (Ordered([Member("a", returns_ready)]), [STARTING, EXITED]),
    "job": (Ordered([Member("a", returns, role=Role.JOB), Member("b", service)]), [STARTING, EXITED]),
    "late": (Ordered([Member("a", never_ready, ready_within=1)]), [STARTING, STOPPING, EXITED]),
    "killed after its grace": (Ordered([Member("a", deaf, grace=1)]), [STARTING, READY, STOPPING, EXITED]),
}


@pytest.mark.parametrize(("group", "states"), LIVES.values(), ids=LIVES)
async def test_states(group: Ordered, states: list[State]) -> None:
    """A process goes through its states in order, each at most once."""
    sampler = Sampler()
    trio.lowlevel.add_instrument(sampler)
    with contextlib.suppress(ErrorTrace, ExitedBeforeReady):
        async with grouper.background(group) as sampler.root:
            await trio.sleep(10)
            sampler.root.signal(TERM)
            await sampler.root.wait()
    trio.lowlevel.remove_instrument(sampler)
    assert sampler.states == states


async def test_state_agrees_with_the_facts() -> None:
    """`exit` is there in the state EXITED and not before; `ready_at` is not before READY."""
    async with grouper.background(Ordered([("a", service)])) as root:
        facts: set[tuple[State, bool, bool]] = set()
        await wait_all_tasks_blocked()
        (process,) = root.children
        facts.add((process.state, process.ready_at is not None, process.exit is not None))
        root.signal(TERM)
        await root.wait()
        facts.add((process.state, process.ready_at is not None, process.exit is not None))
    assert facts == {(READY, True, False), (EXITED, True, True)}


async def test_killed_is_stopping() -> None:
    """A process that was killed, and has not ended yet, is being stopped."""
    async with watched(beside(deaf)) as root:
        a = child(root, "a")
        a.kill()
        assert a.state is STOPPING
        await a.wait()
        assert a.state is EXITED


# Facts


async def test_facts_of_a_process() -> None:
    """Name, path, member, value and the times of its life."""
    member = Member("api", service)
    async with grouper.invoke(Ordered([("web", Ordered([member]))])) as root:
        (api,) = root.children[0].children
        assert (api.name, api.path, api.member, api.value) == ("api", "web/api", member, "up")
        await trio.sleep(3)
        root.signal(TERM)
        exit = await api.wait()
    assert (exit.path, exit.ok, exit.was_ready, exit.killed) == ("web/api", True, True, False)
    assert (exit.started_at, exit.ended_at) == (api.started_at, api.ended_at)
    assert exit.ended_at - exit.started_at == 3


async def test_root_has_the_empty_path() -> None:
    """Paths are relative to the root."""
    async with grouper.invoke(Ordered([("a", service)])) as root:
        assert root.path == ""
        assert root.title == "the root"


async def test_repr() -> None:
    """A process shows its path and state."""
    async with grouper.invoke(Ordered([("web", Ordered([("api", service)]))])) as root:
        assert repr(root.children[0].children[0]) == "<Process 'web/api' ready>"


async def test_children_are_in_start_order_waiting_ones_included() -> None:
    """A group's process has its members' processes, whatever their state."""
    async with grouper.background(Ordered([("a", never_ready), ("b", service)])) as root:
        await wait_all_tasks_blocked()
        assert [(child.name, child.state) for child in root.children] == [("a", STARTING), ("b", WAITING)]
        assert root.children[0].children == ()


async def test_children_are_there_after_the_end() -> None:
    """How the members ended can be looked up when all is over."""
    async with grouper.invoke(Ordered([("a", service), ("b", service)])) as root:
        pass
    assert [child.state for child in root.children] == [EXITED, EXITED]


async def test_no_exit_while_it_runs() -> None:
    """`exit` is None until the process has ended, and one object from then on."""
    async with grouper.invoke(Ordered([("a", service)])) as root:
        assert root.exit is None
        root.signal(TERM)
        exit = await root.wait()
        assert root.exit is exit


async def test_process_that_was_never_started_has_ended_well() -> None:
    """What was not started when the group ended has an exit without an error, never ready."""
    async with watched(Ordered([("a", fails), ("b", service)])) as root:
        b = child(root, "b")
        exit = await b.wait()
    assert (exit.ok, exit.was_ready, exit.killed, b.started_at) == (True, False, False, None)


async def test_job_keeps_its_value() -> None:
    """What a job said with `started(value)` is its value, though it is ready only when it has returned."""
    async with grouper.invoke(Ordered([Member("a", returns_ready, role=Role.JOB), ("b", service)])) as root:
        assert root.children[0].value == "was up"
        assert root.children[0].ready_at == root.children[0].ended_at


# Waiting


async def test_many_wait_and_get_the_same_exit() -> None:
    """Any number of tasks wait, before the end and after, and get one `Exit`."""
    exits: list[grouper.Exit] = []
    async with grouper.invoke(beside(fails_later, role=Role.OPTIONAL)) as root:
        (a, _) = root.children

        async def wait() -> None:
            exits.append(await a.wait())

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
        exits.append(await a.wait())
    assert len(exits) == 4
    assert len(set(map(id, exits))) == 1
    assert isinstance(exits[0].error, OSError)


async def test_many_wait_until_ready_and_get_the_value() -> None:
    """`wait_ready()` returns the value, before and after it is ready, and after the end."""
    values: list[str] = []
    async with grouper.background(Ordered([("a", service)])) as root:
        while not root.children:
            await trio.lowlevel.checkpoint()
        (a,) = root.children

        async def wait() -> None:
            values.append(await a.wait_ready())

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
        root.signal(TERM)
        await root.wait()
        await wait()
    assert values == ["up"] * 4


@pytest.mark.parametrize(("runner", "cause"), [(returns, ExitedBeforeReady), (fails, OSError)])
async def test_waiting_for_ready_ends_with_the_process(runner: Any, cause: type[Exception]) -> None:
    """If it ends first, `wait_ready()` raises an error of its own, from the process's."""
    async with watched(beside(runner)) as root:
        with pytest.raises(ExitedBeforeReady, match="member 'a' ended before it was ready") as caught:
            await child(root, "a").wait_ready()
        assert type(caught.value.__cause__) is cause


async def test_waiters_for_ready_are_woken_by_the_end() -> None:
    """A task that waits for ready is not left waiting."""
    async with watched(Ordered([("a", never_ready)])) as root:
        woken = trio.Event()

        async def wait() -> None:
            with pytest.raises(ExitedBeforeReady):
                await child(root, "a").wait_ready()
            woken.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            root.signal(TERM)
            await woken.wait()


@pytest.mark.parametrize("what", ["wait", "wait_ready"])
async def test_cancelled_wait_does_nothing_to_the_process(what: str) -> None:
    """Who gives up waiting leaves the process running, and the others waiting."""
    async with grouper.background(Ordered([("a", never_ready)])) as root:
        await wait_all_tasks_blocked()
        with trio.move_on_after(1) as scope:
            await getattr(root.children[0], what)()
        assert scope.cancelled_caught
        assert root.children[0].state is STARTING


async def test_wait_after_the_end_is_a_checkpoint() -> None:
    """A loop over exited processes lets other tasks run."""
    async with grouper.invoke(Ordered([("a", service)])) as root:
        pass
    with trio.testing.assert_checkpoints():
        await root.wait()


# Signals and kills


class Listener:
    def __init__(self) -> None:
        self.heard: list[int] = []

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        task_status.started()
        async for number in signals:
            self.heard.append(number)
            if number == TERM:
                return


async def test_signal_reaches_the_runner() -> None:
    """Signals come in the order sent; none that is sent after the end comes anywhere."""
    listener = Listener()
    async with grouper.invoke(listener) as process:
        process.signal(HUP)
        process.signal(TERM)
        await process.wait()
        process.signal(HUP)
    assert listener.heard == [HUP, TERM]


@pytest.mark.parametrize(("number", "error"), [("TERM", TypeError), (0, ValueError), (True, TypeError)])
async def test_what_is_no_signal_is_refused(number: Any, error: type[Exception]) -> None:
    """Also by a process that has ended: a mistake does not depend on the moment."""
    async with grouper.invoke(service) as process:
        with pytest.raises(error, match="a signal is a"):
            process.signal(number)
    with pytest.raises(error, match="a signal is a"):
        process.signal(number)


async def test_member_that_was_told_to_stop_before_ready_has_not_failed() -> None:
    """A stop signal by hand excuses the exit before ready."""
    async with grouper.background(beside(never_ready)) as root:
        await wait_all_tasks_blocked()
        root.children[0].signal(TERM)
        assert (await root.children[0].wait()).ok


KILLS: dict[str, tuple[Callable[[Process], None], str]] = {
    "kill()": (lambda process: process.kill(), "member 'a' was killed"),
    "kill(reason)": (lambda process: process.kill("it leaks"), "member 'a' was killed: it leaks"),
    "SIGKILL": (lambda process: process.signal(KILL), "member 'a' was killed: SIGKILL"),
}


@pytest.mark.parametrize(("kill", "text"), KILLS.values(), ids=KILLS)
@pytest.mark.parametrize("runner", [deaf, never_ready])
async def test_process_killed_by_hand_has_failed(runner: Any, kill: Any, text: str) -> None:
    """A kill cancels the runner; nobody was stopping it, so its error says who did."""
    async with grouper.background(beside(runner, role=Role.OPTIONAL)) as root:
        await wait_all_tasks_blocked()
        kill(root.children[0])
        exit = await root.children[0].wait()
    assert exit.killed
    assert isinstance(exit.error, MemberKilled)
    assert str(exit.error) == text


async def test_kill_of_a_process_that_is_being_stopped_is_no_failure() -> None:
    """A kill only hastens what was asked for."""
    async with grouper.invoke(Ordered([("a", deaf)])) as root:
        root.signal(TERM)
        await wait_all_tasks_blocked()
        root.children[0].kill()
        exit = await root.wait()
        assert exit.ok
        assert [child.exit.killed for child in root.children if child.exit] == [True]


async def test_kill_of_the_root_is_told_of_the_root() -> None:
    """The root is a member like any: its kill is its error, and its members were killed by it and have not failed."""
    async with watched(Ordered([("a", deaf)])) as root:
        root.kill("enough")
        error = (await root.wait()).error
    assert isinstance(error, MemberKilled)
    assert str(error) == "the root was killed: enough"
    assert [child.exit.killed and child.exit.ok for child in root.children if child.exit] == [True]


async def test_second_kill_changes_nothing() -> None:
    """The first reason stands."""
    async with grouper.invoke(beside(deaf, role=Role.OPTIONAL)) as root:
        root.children[0].kill("first")
        root.children[0].kill("second")
        assert "first" in str((await root.children[0].wait()).error)


async def test_kill_after_the_end_does_nothing() -> None:
    """How a process ended does not change."""
    async with grouper.invoke(Ordered([("a", service)])) as root:
        pass
    root.kill()
    root.children[0].kill()
    assert [root.exit and root.exit.killed, root.children[0].exit and root.children[0].exit.ok] == [False, True]


async def test_kill_of_a_process_that_waits_keeps_its_runner_from_running() -> None:
    """A member killed before its turn is started and ends at once, killed; its runner is not called."""
    called: list[str] = []

    async def note(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        called.append("b")

    go = trio.Event()

    async def first(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        await go.wait()
        task_status.started()
        await signals.wait()

    group = Ordered([Member("a", first), Member("b", note, role=Role.OPTIONAL)])
    async with grouper.background(group) as root:
        await wait_all_tasks_blocked()
        root.children[1].kill("not needed")
        assert root.children[1].state is WAITING
        go.set()
        exit = await root.children[1].wait()
    assert (str(exit.error), exit.killed, called) == ("member 'b' was killed: not needed", True, [])


async def test_error_of_a_killed_runner_is_the_cause() -> None:
    """What it raised when it was cancelled is not lost."""

    async def clumsy(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("while cleaning up")

    async with grouper.invoke(beside(clumsy, role=Role.OPTIONAL)) as root:
        root.children[0].kill()
        exit = await root.children[0].wait()
    assert isinstance(exit.error, MemberKilled)
    assert isinstance(exit.error.__cause__, OSError)


# The process as a task status, and what a runner does wrong


async def test_started_twice_is_an_error_that_names_the_member() -> None:
    """A runner is ready once."""

    async def twice(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        task_status.started()
        task_status.started()

    with pytest.raises(grouper.ErrorTrace) as caught:
        async with grouper.invoke(Ordered([("web", Ordered([("api", twice)]))])):
            pass
    assert r"member 'web/api' called task_status.started() a second time: a runner is ready once" in str(caught.value)


async def test_started_after_the_end_does_nothing() -> None:
    """A task status that was given away may be used when its runner is gone."""
    kept: list[trio.TaskStatus[Any]] = []

    async def careless(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        kept.append(task_status)

    async with grouper.background(beside(careless, role=Role.OPTIONAL)) as root:
        await wait_all_tasks_blocked()
        kept[0].started("late")
        await wait_all_tasks_blocked()
        assert (root.children[0].value, root.children[0].ready_at, root.children[0].state) == (None, None, EXITED)


async def test_ready_and_exit_at_once_were_both() -> None:
    """That it had been ready stays a fact, though exit beats ready for those after it."""
    async with watched(Ordered([("a", returns_ready), ("b", service)])) as root:
        a, b = root.children
        assert a.exit is not None
        assert (a.exit.was_ready, a.value, b.started_at) == (True, "was up", None)


@pytest.mark.parametrize("value", [None, 3])
async def test_runner_that_returns_no_awaitable(value: object) -> None:
    """A plain function of the right shape is found out when it is called: the error names the member and the fix."""

    def forgotten(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> Any:
        return value

    with pytest.raises(TypeError, match=f"the root: its runner returned {value}, which is not awaitable: make it `async def`"):
        async with grouper.invoke(forgotten):
            pass


async def test_runner_may_return_any_awaitable() -> None:
    """What it is called to return need not be a coroutine."""

    class Running:
        def __init__(self, signals: Signals, status: trio.TaskStatus[Any]) -> None:
            self.signals, self.status = signals, status

        def __await__(self) -> Generator[Any, Any, None]:
            return service(self.signals, task_status=self.status).__await__()

    def start(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> Running:
        return Running(signals, task_status)

    async with grouper.invoke(start) as process:
        assert process.value == "up"


async def test_type_error_of_a_runner_is_its_own() -> None:
    """A TypeError out of an async function is not taken for a forgotten `async`."""

    async def wrong(signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        raise TypeError("3 + None")

    with pytest.raises(TypeError, match=r"3 \+ None"):
        async with grouper.invoke(wrong):
            pass


async def test_failure_has_the_members_name_as_a_note() -> None:
    """A traceback that is printed somewhere tells whose it is."""
    with pytest.raises(grouper.ErrorTrace) as caught:
        async with grouper.invoke(Ordered([("web", Ordered([("api", fails)]))])):
            pass
    (web,) = caught.value.exceptions
    assert isinstance(web, grouper.ErrorTrace)
    assert web.exceptions[0].__notes__ == ["in member 'web/api'"]
