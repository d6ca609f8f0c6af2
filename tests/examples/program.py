"""Run an example as what it is, a program: an OS process that is told by signals and tells by its output."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import attrs
import trio

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


@attrs.define(eq=False)
class Program:
    """A program that runs. Its output is read when somebody waits for a line of it, by one task at a time."""

    process: trio.Process
    lines: list[str] = attrs.field(factory=list[str])
    _rest: bytes = b""
    _ended: bool = False

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    async def line(self, pattern: str) -> re.Match[str]:
        """Wait for the first line of the whole output in which the pattern is found."""
        seen = 0
        while True:
            for line in self.lines[seen:]:
                if match := re.search(pattern, line):
                    return match
            seen = len(self.lines)
            if self._ended:
                raise AssertionError(f"no line of the output has {pattern!r}")
            await self._read()

    async def end(self) -> int:
        """Wait until it has ended by itself, and return its status."""
        while not self._ended:
            await self._read()
        return await self.process.wait()

    def told(self, pattern: str) -> list[str]:
        """What the pattern's group is in each line read so far that has it, in order."""
        return [match[1] for line in self.lines if (match := re.search(pattern, line))]

    async def _read(self) -> None:
        assert self.process.stdout is not None
        text = await self.process.stdout.receive_some()
        self._ended = not text
        *lines, self._rest = (self._rest + text).split(b"\n")
        self.lines += [line.decode() for line in lines]


@contextlib.asynccontextmanager
async def started(example: str, *arguments: object, seconds: float = 30) -> AsyncGenerator[Program]:
    """Run an example beside the block; whatever happens, it does not outlive it, nor the seconds."""
    command = [sys.executable, str(EXAMPLES / example), *map(str, arguments)]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    program = Program(process)
    try:
        with trio.fail_after(seconds):
            yield program
    except BaseException as error:
        error.add_note("\n".join(["the program's output was:", *program.lines]))
        raise
    finally:
        with trio.CancelScope(shield=True):
            if process.poll() is None:
                process.kill()
            await process.wait()
            assert process.stdout is not None
            await process.stdout.aclose()
