"""The members of a played scenario: they behave as its data says, and write down what they do."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, cast

import attrs
import trio

import grouper
from grouper import (
    Dynamic,
    EventStream,
    Graph,
    Member,
    MemberEntrance,
    MemberExit,
    Ordered,
    Parallel,
    Process,
    QueueOrdered,
    Signals,
)
from grouper.signals import STOP_SIGNALS

from .scenarios import Doing, End, Kind, Leaf, Spec, Step, Tree
from .stories import By, Fact

if TYPE_CHECKING:
    from .playing import World


class BoomError(Exception):
    """What a member fails with."""


@attrs.frozen(eq=False)
class LeafRunner:
    world: World
    spec: Spec
    leaf: Leaf
    position: int

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        world = self.world
        assert isinstance(task_status, Process)
        who = world.numbers[task_status]
        world.note(Fact.BEGAN, who)
        try:
            await self._lead(signals, task_status)
        except BaseException as error:
            world.note(Fact.LEFT, who, error=error)
            raise
        world.note(Fact.LEFT, who)

    async def _lead(self, signals: Signals, process: Process) -> None:
        leaf = self.leaf
        try:
            await self._live(signals, process)
        except trio.Cancelled:
            self.world.note(Fact.CANCELLED, self.world.numbers[process])
            if leaf.cleanup:
                with trio.CancelScope(shield=True):
                    await trio.sleep(leaf.cleanup)
            if leaf.late_ready:
                self._say_ready(process)
            if leaf.cleanup_end is End.CANCELLED:
                raise
            self._end(leaf.cleanup_end, "cleaning up")

    async def _live(self, signals: Signals, process: Process) -> None:
        leaf = self.leaf
        if leaf.ready_elsewhere:
            assert self.world.helpers is not None
            self.world.helpers.start_soon(self._ready_elsewhere, process)
        told = await self._told_within(leaf.setup, signals)
        if not told:
            if leaf.ready and not leaf.late_ready and not leaf.ready_elsewhere:
                self._say_ready(process)
            told = await self._told_within(leaf.life, signals)
        if not told:
            self._end(leaf.end, "living")
            return
        if leaf.stop_delay:
            await trio.sleep(leaf.stop_delay)
        if leaf.late_ready:
            self._say_ready(process)
        self._end(leaf.stop_end, "stopping")

    async def _told_within(self, seconds: float, signals: Signals) -> bool:
        if not seconds:
            return False
        with trio.move_on_after(seconds):
            if self.leaf.stop_delay is None:
                await trio.sleep_forever()
            async for number in signals:
                if number in STOP_SIGNALS:
                    return True
        return False

    async def _ready_elsewhere(self, process: Process) -> None:
        await trio.sleep(self.leaf.setup)
        self._say_ready(process)

    def _say_ready(self, process: Process) -> None:
        if not process._said_ready:
            self.world.note(Fact.SAID, self.world.numbers[process])
            process.started(f"value {self.world.numbers[process]}")

    def _end(self, end: End, phase: str) -> None:
        if end is End.FAIL:
            raise BoomError(f"failed {phase}")
        if end is End.INTERRUPT:
            raise KeyboardInterrupt(f"interrupted {phase}")
        if end is End.EXIT:
            raise SystemExit(f"left {phase}")


@attrs.frozen(eq=False)
class TreeRunner:
    """A group, with what it does written down."""

    world: World
    spec: Spec
    runner: Ordered | QueueOrdered | Parallel | Graph | Dynamic
    position: int

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        world = self.world
        who = world.number_of(task_status)
        world.note(Fact.BEGAN, who)
        try:
            await self.runner.run(signals, task_status=Telling(world, who, task_status))
        except BaseException as error:
            world.note(Fact.LEFT, who, error=error)
            raise
        world.note(Fact.LEFT, who)


@attrs.frozen
class Telling:
    """A group's `task_status`, with the call written down."""

    world: World
    who: int
    task_status: trio.TaskStatus[Any]

    def started(self, value: object = None) -> None:
        self.world.note(Fact.SAID, self.who)
        self.task_status.started(value)


def build(world: World, spec: Spec, position: int) -> LeafRunner | TreeRunner:
    """Make the runner that behaves as the spec says; the clients of its Dynamic groups begin at once."""
    tree = spec.runner
    if isinstance(tree, Leaf):
        return LeafRunner(world, spec, tree, position)
    if tree.kind is Kind.DYNAMIC:
        dynamic = Dynamic(
            tree.capacity, event_buffer=tree.buffer, termination_signal=tree.termination, cancel_grace=tree.cancel_grace
        )
        world.begin(Clienting(world, tree, dynamic).run)
        return TreeRunner(world, spec, dynamic, position)
    members = [
        Member(
            f"m{place}",
            build(world, each, place),
            after=[f"m{other}" for other in each.after],
            role=each.role,
            grace=each.grace,
            ready_within=each.ready_within,
        )
        for place, each in enumerate(tree.members)
    ]
    kinds: dict[Kind, type[Ordered] | type[QueueOrdered] | type[Parallel] | type[Graph]]
    kinds = {Kind.ORDERED: Ordered, Kind.QUEUE: QueueOrdered, Kind.PARALLEL: Parallel, Kind.GRAPH: Graph}
    group = kinds[tree.kind](members, termination_signal=tree.termination, cancel_grace=tree.cancel_grace, event_buffer=tree.buffer)
    return TreeRunner(world, spec, group, position)


@attrs.define(eq=False)
class Clienting:
    """The client task of a Dynamic group, and two listeners that are there from the first moment."""

    world: World
    tree: Tree
    group: Dynamic
    entrances: EventStream[Process, MemberEntrance] = attrs.field(init=False)
    exits: EventStream[Process, MemberExit] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.entrances, self.exits = self.group.client().entrances(), self.group.client().exits()
        for stream in (self.entrances, self.exits):
            with contextlib.suppress(StopIteration):
                stream.__aenter__().send(None)  # now: a task would come a tick later, when something may have happened
        self.world.clients.append(self)

    async def run(self) -> None:
        world = self.world
        world.hands[trio.lowlevel.current_task()] = By.CLIENT
        client = self.group.client()
        for position, step in enumerate(self.tree.steps):
            await trio.sleep(step.delay)
            if step.doing is Doing.CLOSE:
                client.close()
            elif step.doing is Doing.REMOVE:
                process = client.get(step.name)
                if process is not None:
                    world.note(Fact.REMOVED, world.numbers[process])
                with contextlib.suppress(LookupError), world.wait_for(f"remove({step.name!r})", self.tree):
                    await client.remove(step.name)
            else:
                with world.wait_for(f"insert({step.name!r})", self.tree):
                    await self._insert(position, step)

    async def _insert(self, position: int, step: Step) -> None:
        client = self.group.client()
        with contextlib.suppress(grouper.GroupClosed, grouper.DuplicateNames, trio.WouldBlock):
            runner = build(self.world, step.spec, position)
            member = Member(step.name, runner, role=step.spec.role, grace=step.spec.grace, ready_within=step.spec.ready_within)
            process = client.insert_nowait(member) if step.doing is Doing.INSERT_NOWAIT else await client.insert(member)
            if process.started_at is None:
                self.world.wrong.append(f"insert returned {process}, which was not started")

    async def drain(self) -> None:
        """When all is over: what the client's listeners were told is what the tree was told of its members."""
        world = self.world
        ran = [run for run in world.runs if run.tree is self.tree]
        for stream, fact in ((self.entrances, Fact.ENTERED), (self.exits, Fact.EXITED)):
            numbers = [record.who for record in world.log if ran and record.fact is fact and record.who in ran[0].members]
            told: list[int] = []
            with trio.move_on_after(1) as scope:
                async for event in cast("EventStream[Process, MemberEntrance | MemberExit]", stream):
                    told.append(world.numbers[event.process])  # noqa: PERF401 (what was told before a timeout counts)
            if ran and scope.cancelled_caught:
                world.wrong.append("a listener of the client was not released at the end of the group")
            if told != numbers:
                world.wrong.append(f"the client's listeners were told {fact.name} of {told}, not of {numbers}")
