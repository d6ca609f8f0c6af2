"""A command that tells by its exit status."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from typing import IO

import attrs
import trio

from ..errors import NotReady
from ._arguments import plain_path

__all__ = ["CommandCheck", "command"]

TAIL = 4096
"""How much of the end of a command's output is looked at, in bytes."""

LONGEST = 200
"""How much of the last line is told, in characters."""


@attrs.frozen
class CommandCheck:
    """What `command` makes."""

    argv: tuple[str, ...]

    @property
    def name(self) -> str:
        """What errors call it."""
        return f"command {shlex.join(self.argv)}"

    async def __call__(self) -> None:
        """Run it."""
        # Its output is a file and not a pipe: a pipe that what the command leaves in the background holds open would have no end.
        with await trio.to_thread.run_sync(tempfile.TemporaryFile) as output:
            status = await _run(self.argv, output)
            if status == 0:
                return
            line = await trio.to_thread.run_sync(_last_line, output)
        raise NotReady(f"{_told(status)}: {line}" if line else _told(status))


async def _run(argv: tuple[str, ...], output: IO[bytes]) -> int:
    if sys.platform == "win32":
        done = await trio.run_process(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, check=False, deliver_cancel=_kill
        )
    else:
        done = await trio.run_process(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
            deliver_cancel=_kill,
            process_group=0,  # so that all of a shell's pipeline can be killed, not the shell alone
        )
    return done.returncode


async def _kill(process: trio.Process) -> None:
    if sys.platform != "win32" and process.returncode is None:  # else its number may be another's by now
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()  # also if it has left its group


def _last_line(output: IO[bytes]) -> str:
    output.seek(max(0, output.seek(0, os.SEEK_END) - TAIL))
    lines = output.read().decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return last if len(last) <= LONGEST else f"{last[:LONGEST]}..."


def _told(status: int) -> str:
    if status > 0:
        return f"it exited with status {status}"
    try:
        return f"it was killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal
        return f"it was killed by signal {-status}"


def command(*argv: str | os.PathLike[str]) -> CommandCheck:
    """A check that runs an OS process, without a shell, and is ready when that exits with status 0.

    Not yet: any other status, which is told with the last line of what the command wrote, to standard output or to standard
    error. It reads nothing. What it leaves running in the background when it exits is not waited for.

    When the probe's time is over, and on a cancellation, the process is killed and waited for; where there are process groups it
    has one of its own, and all of that is killed.

    Raises, when it is made: TypeError, ValueError. As a check: OSError if the command is not found or cannot be run.
    """
    if not argv:
        raise ValueError('command: there is none: command("pg_isready", "-h", "db") is how it is meant')
    for each in argv:
        if not isinstance(each, str | os.PathLike):
            raise TypeError(f"command: {each!r} is not a string: give each argument as one, such as {str(each)!r}")
    return CommandCheck((plain_path(argv[0], "command"), *(os.fspath(each) for each in argv[1:])))
