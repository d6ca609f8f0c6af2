"""Where a tree begins: `run()` as a program's `main()`, `invoke()` and `background()` inside a program that has its own, `Sigmon`.

The root is a member too: of an engine of its own, which has no name, keeps the root's grace, and kills it in order. So a root
behaves in everything like any member, and there is no second way to run something.

Who owns SIGINT: `run()` does, while it runs, through one `trio.open_signal_receiver`, which keeps trio from raising
KeyboardInterrupt. A task of trio's is needed to take a signal from it, so a member that blocks the event loop delays the stop;
the second signal leaves the receiver and the third is the operating system's. `invoke` and `background` take no signals: there
Ctrl-C is a KeyboardInterrupt in the body, as anywhere in trio, and kills the process in order.

The context managers are classes and not `@asynccontextmanager`s, because a KeyboardInterrupt that comes between the lines of a
generator that is being closed is lost. `trio.lowlevel` is used for that protection.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final

import attrs
import trio

from .events import EventRing
from .exit import ErrorTrace, only_cancelled
from .groups.engine import Engine
from .member import Role, as_member
from .narrating import Narrator
from .process import Process
from .runner import RunnerLike, entry_point, require_runner, said
from .signals import KILL, STOP_SIGNALS, TERMINATE, Signals, signal_name, signal_number

__all__ = ["Sigmon", "background", "invoke", "run", "tree_of"]

logger: logging.Logger = logging.getLogger("grouper")

UNCATCHABLE: Final = frozenset({KILL, int(getattr(signal, "SIGSTOP", KILL))})


class RootEngine(Engine):
    """The engine whose one member is the root of a tree, and whose error is the root's own."""

    anonymous: bool = True

    def __init__(self, signals: Signals, event_buffer: int) -> None:
        status = trio.TASK_STATUS_IGNORED
        super().__init__(signals, status, termination_signal=TERMINATE, cancel_grace=0.0, event_buffer=event_buffer)
        self.ring: EventRing[Process] = EventRing(event_buffer, extra=3)

    def error(self) -> Exception | None:
        """The root's own error."""
        error = self.failed[0]._error if self.failed else None
        return error if isinstance(error, Exception) else None


class Embedded:
    """A runner that runs beside a block of code: what `invoke` and `background` return."""

    def __init__(self, runner: RunnerLike, *, attached: bool) -> None:
        buffer = said(runner, "event_buffer")
        self.signals: Signals = Signals()
        self.engine: RootEngine = RootEngine(self.signals, 64 if buffer is None else buffer)
        member = as_member(("root", runner))
        if member.role is Role.OPTIONAL:  # there is no group that could go on without it
            member = attrs.evolve(member, role=Role.SERVICE)
        self.process: Process = Process(member, self.engine)
        self._attached = attached
        self._entered = False
        self._body = trio.CancelScope()

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Process:
        if self._entered:
            raise RuntimeError("what grouper.invoke() or background() returns is entered once: call it again")
        self._entered = True
        self._nursery = trio.open_nursery()
        nursery = await self._nursery.__aenter__()
        nursery.start_soon(self._supervise, name="root")
        if self._attached:
            try:
                await self.process._settled()
            except BaseException as error:
                await self._leave(error)
                raise
            if self._failed():
                await self._leave(None)
        self._body.__enter__()
        return self.process

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> bool:
        try:
            if self._body.__exit__(kind, error, tb):
                error = None
        except BaseException as rest:  # what the body raised beside the cancellation that was ours
            await self._leave(rest)
            raise
        await self._leave(error)
        return error is None

    def _failed(self) -> bool:
        return self.process.exit is not None and not self.process.exit.ok

    @trio.lowlevel.enable_ki_protection
    async def _supervise(self) -> None:
        await self.engine.supervise([self.process])
        if self._attached and self._failed():
            self._body.cancel("the process that was invoked has failed")

    @trio.lowlevel.enable_ki_protection
    async def _leave(self, error: BaseException | None) -> None:
        """Stop the process and wait for its end; `error` is the block's. Raises what there is to raise but that alone."""
        if error is None:
            self.signals.send(TERMINATE)
        else:
            self.engine.abort()
        errors: list[BaseException] = []
        try:
            await self._nursery.__aexit__(None, None, None)
        except BaseExceptionGroup as group:  # a KeyboardInterrupt that came while the process was stopping
            errors.extend(group.exceptions)
        try:
            self.engine.conclude()
        except BaseException as raised:
            errors.append(raised)
        if error is not None:
            errors = [each for each in errors if each is not error and not isinstance(each, trio.Cancelled)]
            if errors and not only_cancelled(error):
                errors.insert(0, error)
        errors = [each for each in errors if not isinstance(each, trio.Cancelled)] or errors
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise BaseExceptionGroup("a block and the process beside it failed", errors)


def invoke(runner: RunnerLike) -> AbstractAsyncContextManager[Process]:
    """Run a runner beside a block, which begins when it is ready: `async with grouper.invoke(runner) as process`.

    At the end of the block the process is stopped politely, within its grace. If it fails meanwhile, the block is cancelled; a
    clean exit does not cancel it. If the block fails or is cancelled, the process is killed. Raises, at the end: what the process
    raised, a group's ErrorTrace itself; in an exception group with the block's own exception where both failed. Raises, at the
    start: what the process raised if it failed before it was ready; TypeError for what is no runner.
    """
    return Embedded(runner, attached=True)


def background(runner: RunnerLike) -> AbstractAsyncContextManager[Process]:
    """Run a runner beside a block, as `invoke`, but do not wait until it is ready, and do not cancel the block if it fails."""
    return Embedded(runner, attached=False)


def tree_of(signals: Signals) -> Process:
    """The root of the tree that a runner is part of, by the signals that the runner was given.

    So a member can look into its own tree, and operate on it: `tree_of(signals).snapshot()`. Raises: LookupError for signals that
    no group has made.
    """
    process: Process | None = signals._owner
    if process is None:
        raise LookupError("these Signals belong to no tree: a runner finds its tree by the signals that it was given")
    while process._host.owner is not None:
        process = process._host.owner
    return process


def run(root: RunnerLike, *, forward: Iterable[int] = (), snapshot_signal: int | None = None) -> int:
    """Run a tree as the whole program and return its exit status: `sys.exit(grouper.run(root))`.

    The first SIGINT, SIGTERM or SIGQUIT stops it politely and in order, a second one kills it in order, a third is left to the
    operating system. Signals named in `forward` go to all members; at `snapshot_signal` the tree is printed to stderr as it is.
    Others keep what they do. The life of the tree is logged to `logging.getLogger("grouper")`, and the trace of a failed one is
    printed to stderr.

    The status: 0 for a clean end, 1 for a failure, 128 + n where a second signal n forced the end. Raises: TypeError for what is no
    runner, ValueError for what cannot be forwarded or taken, RuntimeError outside the main thread; what is no `Exception`, such as
    SystemExit, if a member raised it.
    """
    program = Program(Embedded(root, attached=False), _forwardable(forward), _for_snapshots(snapshot_signal, forward))
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("grouper.run() takes signals, which only the main thread can: elsewhere use grouper.invoke()")
    program.embedded.engine.ring.hearers.append(Narrator())
    handlers = {number: signal.getsignal(number) for number in program.stops}
    try:
        trio.run(program.main)
    finally:
        if program.forced is not None:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    if program.error is not None and not isinstance(program.error, Exception):
        raise program.error
    if isinstance(program.error, ErrorTrace):
        print(program.error, file=sys.stderr)  # noqa: T201 (the last word of a program)
    elif program.error is not None:
        traceback.print_exception(program.error)
    if program.forced is not None:
        return 128 + program.forced
    return 0 if program.error is None else 1


def _for_snapshots(number: int | None, forward: Iterable[int]) -> int | None:
    if number is not None and (signal_number(number) in STOP_SIGNALS or number in frozenset(forward)):
        raise ValueError(f"snapshot_signal={signal_name(number)} has a meaning already: use one of its own, such as SIGUSR1")
    return None if number is None else next(iter(_forwardable([number])))


def _forwardable(forward: Iterable[int]) -> frozenset[int]:
    if not isinstance(forward, Iterable):
        raise TypeError(f"forward={forward!r} is not a list of signals: write [{forward!r}]")
    numbers = frozenset(map(signal_number, forward))
    for number in numbers - frozenset(map(int, signal.valid_signals())):
        raise ValueError(f"{signal_name(number)} cannot be taken: this system has no such signal")
    for number in numbers & UNCATCHABLE:
        raise ValueError(f"{signal_name(number)} cannot be taken: no program can catch it")
    return numbers


@attrs.define(eq=False)
class Program:
    """One call of `run()`."""

    embedded: Embedded
    forward: frozenset[int]
    snapshot_signal: int | None = None
    forced: int | None = None
    error: BaseException | None = None
    taking: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    @property
    def stops(self) -> frozenset[int]:
        """The stop signals that this system has."""
        return STOP_SIGNALS & frozenset(map(int, signal.valid_signals()))

    async def main(self) -> None:
        """Run the root with its signals taken, and keep what it raised: a nursery would wrap it."""
        process = self.embedded.process
        async with trio.open_nursery() as nursery:
            try:
                await nursery.start(self._take_signals)
                async with self.embedded:
                    await process.wait()
            except BaseException as error:
                self.error = error
            self.taking.cancel("the program has ended")

    async def _take_signals(self, *, task_status: trio.TaskStatus[None]) -> None:
        signals = self.embedded.signals
        asked = [] if self.snapshot_signal is None else [self.snapshot_signal]
        with self.taking, trio.open_signal_receiver(*self.stops, *self.forward, *asked) as received:
            task_status.started()
            async for number in received:
                if number == self.snapshot_signal:
                    self._print_snapshot()
                    continue
                if number in STOP_SIGNALS and signals.received is not None:
                    self.forced = number
                    break
                name = signal_name(number)
                logger.info("received %s", name, extra={"fact": "received", "member": "", "signal": name})
                signals.send(number)
        if self.forced is not None:
            for number in self.stops:
                signal.signal(number, signal.SIG_DFL)
            name = signal_name(self.forced)
            facts = {"fact": "received", "member": "", "signal": name}
            logger.warning("received %s while stopping: what is left is killed", name, extra=facts)
            self.embedded.engine.abort()

    def _print_snapshot(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # stderr may be closed, and the program is not to end of that
            snapshot = self.embedded.process.snapshot()
            print(snapshot.render(), *snapshot.unstopped, sep="\n", file=sys.stderr, flush=True)  # noqa: T201 (it was asked for)


@attrs.frozen(eq=False, init=False)
class Sigmon:
    """Run a runner that gets the operating system's SIGINT and SIGTERM, and the others named, beside those sent to its process.

    For trees inside a program that has its own `trio.run`; `run()` takes signals itself. In the main thread only (else
    RuntimeError).
    """

    runner: RunnerLike
    forward: frozenset[int]

    def __init__(self, runner: RunnerLike, *forward: int) -> None:
        require_runner(runner, "Sigmon")
        object.__setattr__(self, "runner", runner)
        object.__setattr__(self, "forward", _forwardable(forward))

    async def run(self, signals: Signals, /, *, task_status: trio.TaskStatus[Any]) -> None:
        """Run the runner; the signals are the operating system's again when it has exited."""
        error: BaseException | None = None
        with signals._relayed() as inner, trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, *self.forward) as received:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_relay, received, inner)
                try:
                    await entry_point(self.runner)(inner, task_status=task_status)
                except BaseException as caught:
                    error = caught
                nursery.cancel_scope.shield = True  # so that a Cancelled in `_relay` is this nursery's own, and wraps nothing
                nursery.cancel_scope.cancel("the runner has exited")
        if error is not None:
            raise error


async def _relay(received: AsyncIterator[int], signals: Signals) -> None:
    async for number in received:
        signals.send(number)
