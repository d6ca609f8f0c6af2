"""The life of a tree as the log tells it: one line for each start, ready, exit, restart, signal and kill.

The lines are written where it happens, by a hearer on the ring of the tree's events: so they come in the order of the facts, and
none is lost, however the program ends. A task that reads the event stream was rejected: it is a step of the scheduler behind, and
what is told last, when everything is being cancelled, would need a shield of its own.

What a line says is also in the record's attributes (`extra`), so that structlog or a JSON formatter need not parse it. None of
these keys is an attribute that a LogRecord has anyway, nor structlog's `event`:

    fact      "start", "ready", "exit", "restart", "signal" or "kill"
    member    its path, "" for the root
    runner    its kind: the name of the runner's class or function, as in a snapshot
    restarts  (start, exit, restart) how often it was started again so far
    seconds   how long it took to be ready (ready), has run (exit), will wait (restart)
    outcome   (exit) "clean", "failed", or "killed" where it was to stop anyway
    used      (restart) how many restarts of the `limit` are used with this one; no `limit` where any number is allowed
    limit
    signal    (signal) what it is told, by name
    grace     (signal) how many seconds it has from here until it is killed, if there is a limit
"""

from __future__ import annotations

import logging
from math import inf
from typing import Any, Final

from .events import EntranceEvent, ExitEvent, RestartEvent, StartEvent
from .exit import ErrorTrace
from .member import grace_of
from .process import Process
from .signals import STOP_SIGNALS, signal_name
from .snapshot import kind_of, lasting
from .state import Ended

__all__ = ["Hearer", "Narrator", "outcome"]

logger: logging.Logger = logging.getLogger("grouper")


def outcome(ended: Ended) -> str:
    """How a life has ended, in a word. What was killed and is to blame for it has failed."""
    error, _, killed, _, _ = ended
    if error is not None:
        return "failed"
    return "killed" if killed else "clean"


class Hearer:
    """What a ring tells at once, sorted; what is not overridden is not heard.

    A process that ends while it waits for its next life tells an exit too, but no life ends by it: that is `gave_up_waiting`.
    """

    def __init__(self) -> None:
        self.between: set[Process] = set()

    def __call__(self, kind: Any, time: float, process: Process, detail: Any) -> None:
        """Hear one thing, in the step in which it happens."""
        if kind is StartEvent:
            self.between.discard(process)
            self.started(time, process)
        elif kind is EntranceEvent:
            self.entered(time, process)
        elif kind is ExitEvent:
            self._ended(time, process, detail)
        elif kind is RestartEvent:
            self.restarts(RestartEvent(process.path, time, *detail), process)
        elif kind == "signal":
            self.told(time, process, detail)
        elif kind == "kill":
            self.killed(time, process, detail)

    def _ended(self, time: float, process: Process, ended: Ended) -> None:
        was_between = process in self.between
        if process.ended_at is None:
            self.between.add(process)
        else:
            self.between.discard(process)
        if was_between:
            self.gave_up_waiting(time, process, ended)
        else:
            self.exited(time, process, ended)

    def started(self, time: float, process: Process) -> None:
        """A life begins."""

    def entered(self, time: float, process: Process) -> None:
        """It is ready."""

    def exited(self, time: float, process: Process, ended: Ended) -> None:
        """A life has ended."""

    def gave_up_waiting(self, time: float, process: Process, ended: Ended) -> None:
        """It waited for its next life, and either there is none or what is held around the lives has failed."""

    def restarts(self, event: RestartEvent, process: Process) -> None:
        """Its policy has decided that another life follows."""

    def told(self, time: float, process: Process, number: int) -> None:
        """Its group sends it a signal."""

    def killed(self, time: float, process: Process, failure: Exception | None) -> None:
        """It is killed; the failure is why, None if it was to stop anyway."""


RESTARTED: Final = {0: "never restarted", 1: "restarted once"}


class Narrator(Hearer):
    """Writes it to the log."""

    def __init__(self) -> None:
        super().__init__()
        self._passing: list[BaseException] = []

    def started(self, time: float, process: Process) -> None:
        """Tell the start."""
        say(logging.INFO, "start", process, {"restarts": process.restarts}, "%s started", process.title)

    def entered(self, time: float, process: Process) -> None:
        """Tell that it is ready."""
        facts = {} if process.started_at is None else {"seconds": time - process.started_at}
        say(logging.INFO, "ready", process, facts, "%s is ready", process.title)

    def exited(self, time: float, process: Process, ended: Ended) -> None:
        """Tell the exit: that of a failure is its report, with the traceback."""
        error, _, killed, started_at, ended_at = ended
        seconds, restarts, title = ended_at - started_at, process.restarts, process.title
        facts = {"seconds": seconds, "outcome": outcome(ended), "restarts": restarts}
        if error is None:
            say(logging.INFO, "exit", process, facts, "%s was killed" if killed else "%s exited", title)
        else:
            lasted = f"{seconds:.3g} s" if seconds < 60 else lasting(seconds)
            report = (title, kind_of(process.member.runner), lasted, RESTARTED.get(restarts, f"restarted {restarts} times"))
            shown = self._to_show(process, error)
            say(logging.ERROR, "exit", process, facts, "%s (%s) failed after %s, %s", *report, error=shown)

    def gave_up_waiting(self, time: float, process: Process, ended: Ended) -> None:
        """Tell that it is not started again; of the life before, all was told."""
        error, title = ended[0], process.title
        facts = {"outcome": outcome(ended), "restarts": process.restarts}
        if error is None:
            say(logging.INFO, "exit", process, facts, "%s is not restarted any more", title)
        else:
            kind, shown = kind_of(process.member.runner), self._to_show(process, error)
            say(logging.ERROR, "exit", process, facts, "%s (%s) failed while it waited for its restart", title, kind, error=shown)

    def _to_show(self, process: Process, error: BaseException) -> BaseException | None:
        """What to show of an error: nothing, where it only passes through a group and was shown where it came from."""
        if isinstance(error, ErrorTrace):
            return error if process._inner is None else None
        if isinstance(error, Exception):
            return error
        inside: tuple[BaseException, ...] = getattr(error, "exceptions", (error,))
        was_shown = all(isinstance(each, ErrorTrace) or any(each is other for other in self._passing) for each in inside)
        self._passing.append(error)
        return None if was_shown else error

    def restarts(self, event: RestartEvent, process: Process) -> None:
        """Tell how soon it is started again, and how much of the limit that uses."""
        facts: dict[str, Any] = {"seconds": event.delay, "used": event.used, "restarts": process.restarts}
        if event.limit != inf:
            facts["limit"] = event.limit
        say(logging.WARNING, "restart", process, facts, "%s", event)

    def told(self, time: float, process: Process, number: int) -> None:
        """Tell the signal, and how long it has to stop where that begins now."""
        name, title = signal_name(number), process.title
        grace = grace_of(process.member) if number in STOP_SIGNALS and process.since == time else inf
        if grace == inf:
            say(logging.INFO, "signal", process, {"signal": name}, "%s is told %s", title, name)
        else:
            facts = {"signal": name, "grace": grace}
            say(logging.INFO, "signal", process, facts, "%s is told %s and has %g s to stop", title, name, grace)

    def killed(self, time: float, process: Process, failure: Exception | None) -> None:
        """Tell the kill, and why."""
        if failure is not None:
            say(logging.WARNING, "kill", process, {}, "%s", failure)
        elif process._host.anonymous:
            say(logging.WARNING, "kill", process, {}, "%s is killed", process.title)
        else:
            why = "with its group" if getattr(process._host, "killing", False) else "while it is stopping"
            say(logging.WARNING, "kill", process, {}, "%s is killed %s", process.title, why)


def say(
    level: int, fact: str, process: Process, facts: dict[str, Any], text: str, *args: object, error: BaseException | None = None
) -> None:
    """Write one line, if anybody wants it."""
    if logger.isEnabledFor(level):
        extra = {"fact": fact, "member": process.path, "runner": kind_of(process.member.runner), **facts}
        logger.log(level, text, *args, exc_info=error, extra=extra)
