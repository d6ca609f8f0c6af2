"""Play a scenario in a mock time, and write down what really happened.

The log is in one total order. Most of it is written by the members themselves. What a group does to a member is written by spies on
`Process.__init__`, `Signals.send`, `CancelScope.cancel` and `EventRing.publish`: a member could tell only a tick later.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Generator
from typing import Any
from unittest import mock

import attrs
import outcome
import trio
import trio.testing

import grouper
from grouper import EntranceEvent, Event, ExitedBeforeReady, Member, Process, Signals, StartEvent
from grouper.events import EventRing, Source
from grouper.main import Embedded
from grouper.process import Host
from tests.conftest import SCHEDULER

from .actors import Clienting, LeafRunner, TreeRunner, build
from .scenarios import TERM, Action, Entry, Scenario, Spec, Tree, What
from .stories import By, Fact, Person, Record, Run, Story

STOP_AT = 30.0
CANCEL_AT = 300.0
HANG_AT = 5000.0


class Hang(BaseException):
    """Thrown into what hangs, to end the run at all."""


@attrs.define(eq=False)
class World:
    """One play of a scenario: what its members write into."""

    scenario: Scenario
    log: list[Record] = attrs.field(factory=list[Record])
    people: list[Person] = attrs.field(factory=list[Person])
    runs: list[Run] = attrs.field(factory=list[Run])
    numbers: dict[Process, int] = attrs.field(factory=dict[Process, int])
    hosts: dict[Host, int] = attrs.field(factory=dict[Host, int])
    scopes: dict[int, int] = attrs.field(factory=dict[int, int])
    hands: dict[trio.lowlevel.Task, By] = attrs.field(factory=dict["trio.lowlevel.Task", By])
    waiting: dict[object, tuple[str, Tree | None]] = attrs.field(factory=dict[object, "tuple[str, Tree | None]"])
    clients: list[Clienting] = attrs.field(factory=list["Clienting"])
    wrong: list[str] = attrs.field(factory=list[str])
    helpers: trio.Nursery | None = None
    root_signals: Signals | None = None
    outer: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    hung: bool = False
    raised: BaseException | None = None
    streamed: list[Event] = attrs.field(factory=list[Event])
    left_waiting: list[str] = attrs.field(factory=list[str])

    def note(self, fact: Fact, who: int, *, number: int = 0, error: BaseException | None = None) -> None:
        now = trio.current_time()
        by = self.hands.get(trio.lowlevel.current_task(), By.GROUP)
        self.log.append(Record(fact, who, now, by, number, error))

    def number_of(self, process: object) -> int:
        """A process's number; the root without a process has 0."""
        return self.numbers[process] if isinstance(process, Process) else 0

    # The play

    async def main(self) -> None:
        """Play, under a watchdog that ends what hangs."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, trio.lowlevel.current_task())
            try:
                await self._play()
            except BaseException:
                if not self.hung:
                    raise
            nursery.cancel_scope.cancel()

    async def _watch(self, main: trio.lowlevel.Task) -> None:
        await trio.sleep(HANG_AT)
        self.hung = True
        me = trio.lowlevel.current_task()
        with trio.CancelScope(shield=True):
            while self.helpers is not None:
                todo = [main]
                while todo:
                    task = todo.pop()
                    children = [child for nursery in task.child_nurseries for child in nursery.child_tasks if child is not me]
                    todo.extend(children)
                    if not children and task._next_send_fn is None:
                        trio.lowlevel.reschedule(task, outcome.Error(Hang("thrown into what hangs")))
                await trio.sleep(1)

    def begin(self, task: Callable[[], Awaitable[None]]) -> None:
        """Have a task run beside the tree."""
        assert self.helpers is not None
        self.helpers.start_soon(task)

    async def _play(self) -> None:
        try:
            async with trio.open_nursery() as self.helpers:
                runner = build(self, Spec(self.scenario.root), 0)
                async with trio.open_nursery() as actions:
                    with self.outer:
                        try:
                            await self._run_root(runner, actions)
                        except BaseException as error:
                            self.raised = error
                            if isinstance(error, trio.Cancelled):
                                raise
                    self.note(Fact.OVER, 0)
                    actions.cancel_scope.cancel()
                for _ in range(10):
                    await trio.lowlevel.checkpoint()
                for person in self.people:
                    person.seal()
                self.left_waiting = [
                    what for what, tree in self.waiting.values() if tree is None or any(run.tree is tree for run in self.runs)
                ]
                for client in self.clients:
                    await client.drain()
                self.helpers.cancel_scope.cancel()
        finally:
            self.helpers = None

    async def _run_root(self, runner: LeafRunner | TreeRunner, actions: trio.Nursery) -> None:
        if self.scenario.entry is Entry.BARE:
            self.people.append(Person(0, "", None, 0, Spec(self.scenario.root), None))
            self.root_signals = signals = Signals()
            self._begin_actions(signals.send, actions)
            await runner.run(signals, task_status=trio.TASK_STATUS_IGNORED)
            return
        embedded = (grouper.invoke if self.scenario.entry is Entry.INVOKE else grouper.background)(runner)
        assert isinstance(embedded, Embedded)
        self._begin_actions(embedded.process.signal, actions)
        async with embedded.process.events() as stream:
            try:
                async with embedded as process:
                    await process.wait()
            finally:
                with trio.CancelScope(shield=True):
                    self.streamed = [event async for event in stream]

    def _begin_actions(self, tell: Callable[[int], None], actions: trio.Nursery) -> None:
        last = (Action(STOP_AT, 0, What.SIGNAL, TERM), Action(CANCEL_AT, 0, What.CANCEL))
        for action in (*self.scenario.actions, *last):
            actions.start_soon(self._act, action, tell)

    async def _act(self, action: Action, tell: Callable[[int], None]) -> None:
        self.hands[trio.lowlevel.current_task()] = By.HAND
        await trio.sleep(action.at)
        for _ in range(action.ticks):
            await trio.lowlevel.checkpoint()
        processes = list(self.numbers)
        if action.what is What.CANCEL:
            self.note(Fact.OUTSIDE, 0)
            self.outer.cancel()
        elif action.what is What.SIGNAL:
            tell(action.number)
        elif processes:
            process = processes[action.target % len(processes)]
            if action.what is What.KILL:
                process.kill("by the scenario")
            else:
                process.signal(action.number)

    def story(self) -> Story:
        """What happened."""
        return Story(
            self.scenario, self.people, self.runs, self.log, self.raised, self.hung, self.left_waiting, self.wrong, self.streamed
        )

    # The spies

    @contextlib.contextmanager
    def watching(self) -> Generator[None, None, None]:
        made, send, cancel = Process.__init__, Signals.send, trio.CancelScope.cancel
        publish: Any = EventRing[Process].publish

        def spy_made(process: Process, member: Member, host: Host) -> None:
            made(process, member, host)
            self._made(process, host)

        def spy_send(signals: Signals, number: int) -> None:
            owner = signals._owner
            if signals is self.root_signals or owner in self.numbers:
                self.note(Fact.TOLD, self.number_of(owner), number=number)
            send(signals, number)

        def spy_cancel(scope: trio.CancelScope, reason: str | None = None) -> None:
            if id(scope) in self.scopes:
                self.note(Fact.KILLED, self.scopes[id(scope)])
            cancel(scope, reason)

        def spy_publish(ring: EventRing[Any], kind: type[Event], time: float, source: Source, detail: Any = None) -> None:
            assert isinstance(source, Process)
            if ring is source._host.ring and source in self.numbers:
                fact = Fact.STARTED if kind is StartEvent else Fact.ENTERED if kind is EntranceEvent else Fact.EXITED
                self.note(fact, self.numbers[source], error=source._error if fact is Fact.EXITED else None)
                if time != trio.current_time():
                    self.wrong.append(f"the event {kind.__name__} of {source.path!r} has the time {time}, at {trio.current_time()}")
            publish(ring, kind, time, source, detail)

        with (
            mock.patch.object(Process, "__init__", spy_made),
            mock.patch.object(Signals, "send", spy_send),
            mock.patch.object(trio.CancelScope, "cancel", spy_cancel),
            mock.patch.object(EventRing, "publish", spy_publish),
        ):
            yield

    def _made(self, process: Process, host: Host) -> None:
        number = len(self.people)
        self.numbers[process] = number
        self.scopes[id(process._scope)] = number
        run = self.hosts.get(host)
        if run is None:
            run = self.hosts[host] = len(self.runs)
            owner = None if host.anonymous else self.number_of(host.owner)
            tree = None if owner is None else self.people[owner].tree
            self.runs.append(Run(run, owner, tree))
        runner = process.member.runner
        assert isinstance(runner, LeafRunner | TreeRunner)
        self.people.append(Person(number, process.member.name, run, runner.position, runner.spec, process))
        self.runs[run].members.append(number)
        if self.scenario.waiters and self.helpers is not None:
            self.helpers.start_soon(self._await_end, process)
            self.helpers.start_soon(self._await_ready, process)

    # Those who wait

    @contextlib.contextmanager
    def wait_for(self, what: str, tree: Tree | None = None) -> Generator[None, None, None]:
        """Be noted as waiting during the block; who is cancelled there stays noted."""
        key = object()
        self.waiting[key] = what, tree
        try:
            yield
        except trio.Cancelled:
            raise
        except BaseException:
            del self.waiting[key]
            raise
        del self.waiting[key]

    async def _await_end(self, process: Process) -> None:
        with self.wait_for(f"wait() of {process.path!r}"):
            exit = await process.wait()
        if exit is not process.exit:
            self.wrong.append(f"wait() of {process.path!r} returned {exit}, not its exit")

    async def _await_ready(self, process: Process) -> None:
        with self.wait_for(f"wait_ready() of {process.path!r}"):
            try:
                value = await process.wait_ready()
            except ExitedBeforeReady:
                if process.ready_at is not None:
                    self.wrong.append(f"wait_ready() of {process.path!r} raised, but it was ready")
                return
        if process.ready_at is None or value != process.value:
            self.wrong.append(f"wait_ready() of {process.path!r} returned {value!r}")


def play(scenario: Scenario) -> Story:
    """Run the scenario to its end and return what happened; the scheduler shuffles as the scenario's seed says."""
    world = World(scenario)
    logger = logging.getLogger("grouper")
    with (
        mock.patch.object(SCHEDULER, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
        mock.patch.object(SCHEDULER, "_r", random.Random(scenario.seed)),
        mock.patch.object(logger, "disabled", True),
        world.watching(),
    ):
        trio.run(world.main, clock=trio.testing.MockClock(autojump_threshold=0))
    return world.story()
