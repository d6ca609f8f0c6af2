"""`grouper waitgroup run`: be a member while a command runs, and end as it did.

The command is in this process's group, so that Ctrl-C in the terminal reaches both, and a shell's job control stops and continues
both. What is sent to this process alone is passed on. Which is which the kernel tells: what comes from the terminal is sent by the
kernel, and the command has it already unless it has left the group. (`sudo` tells them apart so. `timeout` makes a group of its
own, which takes the terminal away from the command; `flock` dies of the signal while its command runs on.)

There are no handlers. The signals are blocked before the member is made, and taken by `sigwaitinfo` one after the other, the end of
the command among them. So none strikes anywhere else, and this process does not end before the command has ended and the member has
left, however often Ctrl-C is pressed. As who takes the signals also reaps the command, its pid is never another's when a signal is
sent to it. A thread watches for the command's end, since the kernel gives SIGCHLD to any thread that does not block it: a program
that calls `main` may have such.

After a kill -9 of this process the member is lost, which the others see; the command goes on. Linux could be asked to kill it then,
but only by code that runs between fork and exec, which Python cannot do safely.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ..coordination.errors import CoordinationError, Deleted, MemberLost, NotFound, Unavailable, require_name
from ..coordination.store import MEMBER
from .exit_status import FAILED, CommandNotFound, CommandNotRun, status_of
from .output import Answer

if TYPE_CHECKING:
    from ..coordination.model import Entry
    from ..coordination.store import Store
    from .arguments import Arguments
    from .driving import Driver

__all__ = ["run_as_member"]

PASSED_ON: Final = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2")
"""By name: not every system has all. One that was ignored when this process began stays ignored, for the command too (`nohup`)."""

RESTORED: Final = ("SIGPIPE", "SIGXFSZ")
"""What Python itself ignores, and a command must not inherit."""


async def run_as_member(store: Store, arguments: Arguments, driver: Driver) -> Answer:
    """Join, run the command, leave. The status is the command's; if that is 0 and the member was not there any more, it says so."""
    if not hasattr(os, "posix_spawnp") or not hasattr(signal, "pthread_sigmask"):
        raise Unavailable("`run` needs the processes and signals of Unix: add to the group, run the command, and be done")
    id = _made_up(arguments.command[0]) if arguments.id is None else require_name(arguments.id, "member")
    name = store.waitgroup(arguments.name).name
    code, ended = 0, False
    trouble: CoordinationError | None = None
    with Relay() as relay:
        try:
            async with store.owner():
                entry = await store.register(MEMBER, name, id, "")
                try:
                    early = relay.pending()
                    code = -early if early else await driver.call(relay.run, arguments.command)
                    ended = True
                finally:
                    trouble = await _leave(store, entry)
        except CoordinationError as error:
            if not ended and (early := relay.pending()):
                return Answer(signal=early, trouble=error)
            if not ended:
                raise
            trouble = trouble or error
    if code < 0:
        return Answer(signal=-code, trouble=trouble)
    if not code and trouble is not None:
        code = status_of(trouble) or FAILED
    return Answer(status=code, trouble=trouble)


async def _leave(store: Store, entry: Entry) -> CoordinationError | None:
    """Leave the group, and return what is to be told about that."""
    group = f"wait group {entry.name!r}"
    try:
        if await store.withdraw(MEMBER, entry):
            return None
        await store.status(entry.name)
    except NotFound:
        return Deleted(f"{group} was deleted while the command ran: nobody was told that it ended")
    except CoordinationError as error:
        return Unavailable(f"{error}: the command has ended, but its member {entry.id!r} will be counted as lost")
    return MemberLost(
        f"{group}: member {entry.id!r} was counted as lost while the command ran, since the store had not heard of it for too long"
    )


def _made_up(command: str) -> str:
    """A member's id that tells what it does."""
    name = "".join([char for char in os.path.basename(command) if char.isprintable()])
    return f"{name[:40] or 'command'}-{os.urandom(4).hex()}"


class Relay:
    """A block in which signals are for a command. Enter it in the main thread, before there are others."""

    def __init__(self) -> None:
        numbers = [signal.Signals[name] for name in PASSED_ON if hasattr(signal, name)]
        self._passed_on = {number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN}
        self._taken = self._passed_on | {signal.SIGCHLD}

    def __enter__(self) -> Relay:
        self._handler = signal.signal(signal.SIGCHLD, _never)  # some systems forget what is ignored, blocked or not
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._taken)
        return self

    def __exit__(self, *_: object) -> None:
        while late := self._taken & signal.sigpending():
            signal.sigwait(late)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        signal.signal(signal.SIGCHLD, self._handler)

    def pending(self) -> int | None:
        """A signal that has come, None if none has."""
        return min(self._passed_on & signal.sigpending(), default=None)

    def run(self, command: Sequence[str]) -> int:
        """Run a command to its end, and return its status, or minus the signal that ended it. Any thread may.

        Raises: CommandNotFound, CommandNotRun.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, self._taken)
        if not command[0]:
            raise CommandNotFound("the command is empty: say what to run after `--`")
        pid = self._spawn(command)
        watcher = threading.Thread(target=_tell_the_end, args=(pid, threading.get_ident()), name="watch a command")
        watcher.start()
        try:
            return self._pass_on(pid)
        finally:
            watcher.join()

    def _pass_on(self, pid: int) -> int:
        for number in self._passed_on & signal.sigpending():  # the terminal's, if it came before there was a command to get it
            signal.sigwait({number})
            _send(pid, number)
        while True:
            number, everybody = self._next()
            if number == signal.SIGCHLD:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    return os.waitstatus_to_exitcode(status)
            elif not (everybody and os.getpgid(pid) == os.getpgrp()):
                _send(pid, number)

    def _spawn(self, command: Sequence[str]) -> int:
        restored = [signal.Signals[name] for name in RESTORED if hasattr(signal, name)]
        shown = command[0]
        try:
            return os.posix_spawnp(shown, list(command), os.environ, setsigmask=self._mask, setsigdef=restored)
        except FileNotFoundError:
            raise CommandNotFound(
                f"the command {shown!r} is not found: check its name, PATH, and the program that its first line names"
            ) from None
        except OSError as error:
            raise CommandNotRun(
                f"the command {shown!r} cannot be run ({error.strerror}): check its mode and its first line"
            ) from None

    def _next(self) -> tuple[int, bool]:
        """The next signal, and whether it was sent to the whole process group."""
        if hasattr(signal, "sigwaitinfo"):
            info = signal.sigwaitinfo(self._taken)
            return info.si_signo, info.si_code > 0
        number = signal.sigwait(self._taken)
        return number, number in (signal.SIGINT, signal.SIGQUIT) and _in_foreground()


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(PermissionError):  # the command has become another user's
        os.kill(pid, number)


def _tell_the_end(pid: int, thread: int) -> None:
    """Send SIGCHLD to that thread when the command has ended, which it may have seen by itself."""
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    signal.pthread_kill(thread, signal.SIGCHLD)


def _in_foreground() -> bool:
    """Whether the terminal's signals come to this process, where the kernel does not tell which are the terminal's."""
    try:
        return os.tcgetpgrp(2) == os.getpgrp()
    except OSError:
        return False


def _never(number: int, frame: object) -> None:
    """Handle a signal that is always blocked."""
