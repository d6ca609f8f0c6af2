"""Members that come and go with the files of a directory."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from .program import started

pytestmark = pytest.mark.real_time

SOON = ("--every", 0.02)
NEVER = ("--every", 3600)  # after the first look


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


async def test_only_what_is_appended_is_printed_of_a_file_that_was_there(tmp_path: Path) -> None:
    """Its old lines are not."""
    file = tmp_path / "a.log"
    append(file, "old\n")
    async with started("dynamic_tailers.py", tmp_path, *SOON) as program:
        await program.line("following 1 file")
        append(file, "new\n")
        await program.line("^a.log: new$")
    assert program.told("^(a.log: .*)") == ["a.log: new"]


async def test_a_file_that_appears_is_followed_from_its_start(tmp_path: Path) -> None:
    """A tailer is inserted for it, and for no file that does not match."""
    async with started("dynamic_tailers.py", tmp_path, *SOON) as program:
        await program.line("following 0 file")
        append(tmp_path / "other.txt", "not followed\n")
        append(tmp_path / "b.log", "first\n")
        await program.line("^b.log: first$")
        append(tmp_path / "b.log", "second\n")
        await program.line("^b.log: second$")
    assert program.told(r"(other\.txt)") == []


async def test_a_file_that_disappears_is_followed_no_longer(tmp_path: Path) -> None:
    """Its tailer is removed, and no other; another file of its name gets another tailer."""
    async with started("dynamic_tailers.py", tmp_path, *SOON) as program:
        await program.line("following 0 file")
        append(tmp_path / "a.log", "one\n")
        append(tmp_path / "b.log", "one\n")
        await program.line("^a.log: one$")
        await program.line("^b.log: one$")
        (tmp_path / "a.log").unlink()
        await program.line("member 'tailers/a.log' exited")
        append(tmp_path / "a.log", "reborn\n")
        await program.line("^a.log: reborn$")
        append(tmp_path / "b.log", "two\n")
        await program.line("^b.log: two$")
        assert program.told("member 'tailers/b.log' (.*)") == ["started", "is ready"]
        assert program.told("member 'tailers/a.log' (started|is ready|exited)") == [
            "started",
            "is ready",
            "exited",
            "started",
            "is ready",
        ]


async def test_a_rotated_file_loses_no_line(tmp_path: Path) -> None:
    """What was written before the rotation comes from the old file, what was written after it from the new one."""
    file = tmp_path / "a.log"
    async with started("dynamic_tailers.py", tmp_path, *SOON) as program:
        await program.line("following 0 file")
        append(file, "1\n")
        await program.line("^a.log: 1$")
        append(file, "2\n")
        file.rename(tmp_path / "a.log.1")
        append(file, "3\n")
        await program.line("^a.log: 3$")
    assert program.told("^a.log: (.*)") == ["1", "2", "3"]


async def test_a_truncated_file_is_followed_from_its_start(tmp_path: Path) -> None:
    """As when a program empties its log in place."""
    file = tmp_path / "a.log"
    async with started("dynamic_tailers.py", tmp_path, *SOON) as program:
        await program.line("following 0 file")
        append(file, "a long line\n")
        await program.line("^a.log: a long line$")
        file.write_text("short\n")
        await program.line("^a.log: short$")


async def test_the_last_lines_are_printed_on_sigterm(tmp_path: Path) -> None:
    """Also one without an end, after the watcher has stopped; the status is 0."""
    file = tmp_path / "a.log"
    append(file, "old\n")
    async with started("dynamic_tailers.py", tmp_path, *NEVER) as program:
        await program.line("following 1 file")
        append(file, "last\nunfinished")
        program.signal(signal.SIGTERM)
        assert await program.end() == 0
    assert program.told("^(a.log: .*)") == ["a.log: last", "a.log: unfinished"]
    assert program.told("member '(.*)' exited") == ["watcher", "tailers/a.log", "tailers"]


async def test_a_directory_that_vanishes_fails_the_program(tmp_path: Path) -> None:
    """The watcher's error is in the trace, and the status is 1."""
    directory = tmp_path / "logs"
    directory.mkdir()
    async with started("dynamic_tailers.py", directory, *SOON) as program:
        await program.line("following 0 file")
        directory.rmdir()
        assert await program.end() == 1
    assert program.told("  (watcher: FileNotFoundError): ") == ["watcher: FileNotFoundError"]
