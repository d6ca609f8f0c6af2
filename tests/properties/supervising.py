"""Play the life of a supervised tree in a mock time, with an auditor who looks at each step.

Members do at random what their seeds say, until the world is calm: from then on each lives until it is told to stop. Beside the
tree, one task operates it at random.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
from collections.abc import AsyncGenerator, Callable
from typing import Any
from unittest import mock

import attrs
import outcome
import trio
import trio.testing

from grouper import (
    CascadeNeeded,
    DoNotRestart,
    DuplicateNames,
    Dynamic,
    ExitedBeforeReady,
    Graph,
    GroupClosed,
    Member,
    Ordered,
    Parallel,
    Process,
    QueueOrdered,
    Role,
    Signals,
    State,
    TerminateTree,
)
from grouper.main import Embedded
from grouper.signals import STOP_SIGNALS
from tests.conftest import SCHEDULER
from tests.groups.transitions import watched_transitions

from .actors import BoomError
from .auditing import Auditor, BrokenError
from .playing import Hang
from .scenarios import HUP, INT, KILL, TERM, USR1, Kind
from .supervised import LATER, Ending, Hold, Leaf, Life, Spec, Tree

__all__ = ["World", "play"]

QUIET: float = 400.0
"""Seconds after which, with nothing going wrong any more, all that is to happen has happened."""

HANG_AT: float = 20_000.0

SHAPES: dict[Kind, Callable[..., Any]] = {
    Kind.ORDERED: Ordered,
    Kind.QUEUE: QueueOrdered,
    Kind.PARALLEL: Parallel,
    Kind.GRAPH: Graph,
}


class RareError(Exception):
    """A failure that is none of `BoomError`."""


@attrs.define(eq=False)
class Actor:
    """A leaf: one runner, of whose lives there is one at a time."""

    world: World
    spec: Spec
    leaf: Leaf
    random: random.Random
    alive: bool = False
    said_ready: bool = False
    held: int = 0

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        """Live once."""
        who = f"{task_status!r}"
        self.world.expect(not self.alive, f"{who} lives twice at once")
        self.world.expect(self.held == (self.spec.around is not None), f"{who} lives inside of {self.held} `around`")
        self.alive = True
        self.said_ready = False
        self.world.lives += 1
        try:
            await self._live(signals, task_status)
        finally:
            cleanup = self.random.choice([0.0, 0.0, 0.0, 0.4])
            if cleanup:
                with trio.CancelScope(shield=True):
                    await trio.sleep(cleanup)
            self.alive = False

    async def _live(self, signals: Signals, status: trio.TaskStatus[Any]) -> None:
        chance = self.random
        goes_wrong = not self.world.calm and chance.random() < self.leaf.moody
        setup = chance.choice([0.0, 0.0, 0.1, 0.5])
        if await self._told_within(setup, signals):
            return
        if goes_wrong and chance.random() < 0.15:
            raise self._failure()
        self.said_ready = True
        status.started(self.world.lives)
        lasts = chance.choice([0.0, 0.1, 0.5, 0.5, 2.0]) if goes_wrong or self.spec.role is Role.JOB else math.inf
        if not await self._told_within(lasts, signals):
            if goes_wrong and chance.random() < 0.7:
                raise self._failure()
            return
        if chance.random() < 0.1:
            await trio.sleep(chance.choice([1.0, 5.0, math.inf]))  # deaf to signals
        await trio.sleep(chance.choice([0.0, 0.0, 0.0, 0.3, 1.0]))
        if goes_wrong and chance.random() < 0.5:
            raise self._failure()

    def _failure(self) -> Exception:
        chance = self.random.random() if not self.world.life.lasting else 1.0
        if chance < 0.02:
            return DoNotRestart("mine")
        if chance < 0.025:
            return TerminateTree("mine")
        return RareError("mine") if chance < 0.15 else BoomError("mine")

    async def _told_within(self, seconds: float, signals: Signals) -> bool:
        if not seconds:
            return signals.received is not None
        with trio.move_on_after(seconds):
            async for number in signals:
                if number in STOP_SIGNALS:
                    return True
        return False


@attrs.define(eq=False)
class World:
    """One play of a life."""

    life: Life
    auditor: Auditor = attrs.field(factory=Auditor)
    actors: list[Actor] = attrs.field(factory=list[Actor])
    clients: list[tuple[Dynamic, Tree]] = attrs.field(factory=list[tuple[Dynamic, Tree]])
    calm: bool = False
    lives: int = 0
    pending: dict[object, tuple[str, str, str]] = attrs.field(factory=dict[object, "tuple[str, str, str]"])
    ended: int = 0
    hung: bool = False
    playing: bool = True
    chance: random.Random = attrs.field(factory=random.Random)

    def expect(self, right: object, otherwise: str) -> None:
        """Note what is wrong."""
        if not right:
            self.auditor.wrong.append(f"{trio.current_time():g}: {otherwise}")

    def member(self, spec: Spec, tree: Tree) -> Member:
        """Make a member."""
        key = random.Random(f"{self.life.seed} {len(self.actors)}")
        runner: Any
        if isinstance(spec.runner, Leaf):
            runner = Actor(self, spec, spec.runner, random.Random(spec.runner.seed))
        else:
            runner = self.group(spec.runner)
        actor = runner if isinstance(runner, Actor) else Actor(self, spec, Leaf(0), key)
        self.actors.append(actor)
        hold = spec.around
        member = Member(
            spec.name,
            runner,
            after=spec.after,
            role=spec.role,
            restart=spec.restart,
            around=None if hold is None else lambda: self._held(actor, hold),
            grace=spec.grace,
        )
        self.auditor.specs[member] = spec
        self.auditor.trees[member] = tree
        return member

    def group(self, tree: Tree) -> Any:
        """Make a group."""
        if tree.kind is Kind.DYNAMIC:
            dynamic = Dynamic(
                3,
                termination_signal=tree.termination,
                cancel_grace=tree.cancel_grace,
                drain_signal=tree.drain_signal,
                drain_within=0.5,
            )
            self.clients.append((dynamic, tree))
            return dynamic
        members = [self.member(spec, tree) for spec in tree.members]
        return SHAPES[tree.kind](
            members,
            termination_signal=tree.termination,
            cancel_grace=tree.cancel_grace,
            drain_signal=tree.drain_signal,
            drain_within=0.5,
            strategy=tree.strategy,
            restart=tree.restart,
        )

    @contextlib.asynccontextmanager
    async def _held(self, actor: Actor, hold: Hold) -> AsyncGenerator[None]:
        self.expect(not actor.held, f"the `around` of {actor.spec.name!r} is entered twice")
        await trio.sleep(hold.enters)
        if not self.calm and actor.random.random() < hold.fails:
            raise BoomError("entering")
        actor.held += 1
        try:
            yield
        finally:
            self.expect(not actor.alive, f"the `around` of {actor.spec.name!r} is left while it lives")
            if hold.leaves:
                with trio.CancelScope(shield=True):
                    await trio.sleep(hold.leaves)
            actor.held -= 1

    # What is done from outside

    async def main(self) -> None:
        """Play, under a watchdog that ends what hangs."""
        self.chance = random.Random(self.life.seed)
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
        self.expect(False, f"it hangs; {self.pending.values()}")
        me = trio.lowlevel.current_task()
        with trio.CancelScope(shield=True):
            while self.playing:
                todo = [main]
                while todo:
                    task = todo.pop()
                    children = [child for nursery in task.child_nurseries for child in nursery.child_tasks if child is not me]
                    todo.extend(children)
                    if not children and task._next_send_fn is None:
                        trio.lowlevel.reschedule(task, outcome.Error(Hang("thrown into what hangs")))
                await trio.sleep(1)

    async def _play(self) -> None:
        try:
            async with trio.open_nursery() as helpers:
                embedded = Embedded(self.group(self.life.root), attached=False)
                self.auditor.root = embedded.process
                embedded.engine.ring.hearers.append(self.auditor.hear)
                outer = trio.CancelScope()
                helpers.start_soon(self._from_outside, embedded.process, outer, helpers)
                with outer, contextlib.suppress(Exception):
                    async with embedded as process:
                        await process.wait()
                self.auditor.after_all()
                for actor in self.actors:
                    self.expect(not actor.alive, f"{actor.spec.name!r} is left alive")
                    self.expect(not actor.held, f"the `around` of {actor.spec.name!r} is left held")
                for _ in range(10):
                    await trio.lowlevel.checkpoint()
                left = [what for _, what, _ in self.pending.values()]
                self.expect(not left, f"operations hang: {self._waiting()}")
                helpers.cancel_scope.cancel()
        finally:
            self.playing = False

    async def _from_outside(self, root: Process, outer: trio.CancelScope, helpers: trio.Nursery) -> None:
        life, chance = self.life, self.chance
        for _ in range(life.operations):
            await trio.sleep(life.pause * chance.choice([0.0, 0.2, 1.0, 2.0]))
            for _ in range(chance.choice([0, 0, 1, 3])):
                await trio.lowlevel.checkpoint()
            if root.exit is not None:
                return
            self._do(root, helpers)
            if chance.random() < 0.5:
                self.auditor.compare(root.snapshot())
        self.calm = True
        if life.quiet:
            await trio.sleep(QUIET)
            if root.exit is None:
                self.auditor.compare(root.snapshot())
                self.auditor.after_quiet()
                # A member that was started again meanwhile has not ended, so who stopped it still waits.
                held = {each.path for each, track in self.auditor.tracks.items() if track.is_held}
                stuck = [what for verb, what, path in self.pending.values() if verb == "stop" and path in held]
                self.expect(not stuck, f"these stops hang: {stuck}")
                self._expect_starts_to_end(root)
        await self._end(root, outer)

    def _expect_starts_to_end(self, root: Process) -> None:
        """After quiet, who waits for a member to be ready waits for one that cannot be, because of others."""
        if any(verb != "stop" for verb, _, _ in self.pending.values()):
            states = {each.state.value for each in self.auditor.processes()}
            self.expect(states & {"waiting", "starting"}, f"these operations hang: {self._waiting()}")

    def _waiting(self) -> list[str]:
        return [what for _, what, _ in self.pending.values()]

    async def _end(self, root: Process, outer: trio.CancelScope) -> None:
        self.calm = True
        if self.life.ending is Ending.CANCEL:
            outer.cancel()
            return
        root.signal(KILL if self.life.ending is Ending.KILL else TERM)
        if self.life.ending is Ending.TWICE:
            await trio.sleep(0.2)
            root.signal(INT)

    def _do(self, root: Process, helpers: trio.Nursery) -> None:
        """Do something to some process."""
        chance = self.chance
        groups = [each for each in self.auditor.processes() if each._inner is not None]
        members = [child for each in groups for child in each.children]
        numbers = [HUP, USR1] if self.life.lasting else LATER
        kind = chance.random()
        if members and kind < 0.1:
            chance.choice(members).signal(chance.choice(numbers))
        elif members and kind < 0.16:
            member = chance.choice(members)
            if not self.life.lasting or member.state not in (State.BACKOFF, State.WAITING):  # these it would end for good
                member.kill("by the scenario")
        elif self.clients and kind < 0.45:
            dynamic, tree = chance.choice(self.clients)
            spec = chance.choice(tree.members)
            client = dynamic.client()
            if chance.random() < 0.7:
                with contextlib.suppress(trio.WouldBlock, GroupClosed, DuplicateNames):
                    client.insert_nowait(self.member(spec, tree))
            else:
                helpers.start_soon(self._remove, client, spec.name)
        elif groups:
            group = chance.choice(groups)
            names = [each.name for each in group.children]
            name = chance.choice([*names, *names, *names, "unknown"])
            verb = chance.choice(["start", "stop", "restart"])
            helpers.start_soon(self._operate, group, verb, name, chance.random() < 0.5, chance.choice([math.inf] * 4 + [0.0, 0.4]))

    async def _remove(self, client: Any, name: str) -> None:
        with contextlib.suppress(LookupError, GroupClosed):
            await client.remove(name)

    async def _operate(self, group: Process, verb: str, name: str, cascade: bool, patience: float) -> None:
        key = object()
        path = f"{group.path}/{name}" if group.path else name
        self.pending[key] = verb, f"{verb} {path!r}, cascade={cascade}, at {trio.current_time():g}", path
        try:
            with trio.move_on_after(patience) as scope:
                await getattr(group, verb)(name, cascade=cascade)
            self.expect(scope.cancelled_caught or name != "unknown", f"{self.pending[key][1]} found a member")
        except (LookupError, CascadeNeeded, GroupClosed, ExitedBeforeReady, TypeError) as error:
            dynamic = isinstance(group.member.runner, Dynamic)
            self.expect(dynamic or not isinstance(error, TypeError), f"{self.pending[key][1]} raised {error!r}")
            if isinstance(error, CascadeNeeded):
                self.expect(not cascade and error.names, f"{self.pending[key][1]} raised {error!r}")
        except Exception as error:
            self.expect(False, f"{self.pending[key][1]} raised {error!r}")
        del self.pending[key]
        self.ended += 1


def play(life: Life) -> World:
    """Play a life to its end. Raises: BrokenError that tells all that was wrong."""
    world = World(life)
    logger = logging.getLogger("grouper")
    random.seed(life.seed)  # of the jitter
    with (
        mock.patch.object(SCHEDULER, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
        mock.patch.object(SCHEDULER, "_r", random.Random(life.seed)),
        mock.patch.object(logger, "disabled", True),
        world.auditor.watching(),
    ):
        try:
            with watched_transitions():
                trio.run(world.main, clock=trio.testing.MockClock(autojump_threshold=0))
        except trio.TrioInternalError:
            if not world.hung:  # else it is from what was thrown into what hangs
                raise
        except AssertionError as error:
            world.auditor.wrong.append(str(error))
    if world.auditor.wrong:
        raise BrokenError("\n".join(world.auditor.wrong[:8]))
    return world
