"""Lines in a log file that is written, rotated, truncated and replaced."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from grouper import NotReady
from grouper.readiness import CheckFailed, CheckTimeout, log_line, poll, probe

pytestmark = pytest.mark.real_time


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def write(log: Path, content: bytes) -> None:
    log.write_bytes(content)


def append(log: Path, text: str) -> None:
    with log.open("a") as file:
        file.write(text)


async def polled(log: Path, pattern: str, *steps: Callable[[], object]) -> re.Match[str]:
    """Ask as a poll does, with one step after each "not yet"; the answer must come after the last."""
    ask = log_line(log, pattern).for_poll()
    for step in steps:
        with pytest.raises(NotReady):
            await ask()
        step()
    found = await ask()
    assert isinstance(found, re.Match)
    return found


async def test_a_line_that_matches_is_ready(log: Path) -> None:
    """The pattern may match anywhere in it; the match is the value."""
    append(log, "starting\nnow listening on port 8080 at last\n")
    found = await probe(log_line(log, r"port (\d+)"))
    assert found[1] == "8080"
    assert (await probe(log_line(str(log), re.compile("LISTENING", re.IGNORECASE))))[0] == "listening"


async def test_no_file_is_not_yet(log: Path) -> None:
    """Nor a directory that is missing."""
    for path in (log, log / "x"):
        with pytest.raises(NotReady, match=rf"^check \"log line 'ready' in {path}\" is not ready: there is no such file$"):
            await probe(log_line(path, "ready"))


async def test_no_such_line_is_not_yet(log: Path) -> None:
    """Of an empty file as well."""
    append(log, "")
    with pytest.raises(NotReady, match=r"no line matches$"):
        await probe(log_line(log, ""))
    append(log, "starting\n")
    with pytest.raises(NotReady, match=r"no line matches$"):
        await probe(log_line(log, "ready"))


async def test_a_line_counts_when_it_is_complete(log: Path) -> None:
    """Half of a line could match what the whole does not."""
    append(log, "a\nport 80")
    with pytest.raises(NotReady):
        await probe(log_line(log, r"port (\d+)"))
    found = await polled(log, r"port (\d+)", lambda: append(log, "80"), lambda: append(log, "\n"))
    assert found[1] == "8080"


async def test_a_pattern_sees_one_line_without_its_end(log: Path) -> None:
    """Of either kind."""
    append(log, "not ready\nready\r\n")
    assert (await probe(log_line(log, "^ready$")))[0] == "ready"
    with pytest.raises(NotReady):
        await probe(log_line(log, r"ready\s+ready"))


async def test_bytes_that_are_no_text_do_not_hurt(log: Path) -> None:
    """They are as U+FFFD."""
    write(log, b"\xff\xfe\x00\nre\xffdy\n")
    assert (await probe(log_line(log, "re.dy")))[0] == "re\ufffddy"


async def test_a_poll_reads_what_is_new(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no line twice."""
    seen: list[str] = []

    @attrs.frozen
    class Pattern:
        pattern: str = "ready"

        def search(self, line: str) -> re.Match[str] | None:
            seen.append(line)
            return re.search(self.pattern, line)

    append(log, "a\nb\nc")
    pattern: Any = Pattern()
    ask = attrs.evolve(log_line(log, "x"), pattern=pattern).for_poll()
    for text in ("", "d\n", "e\nready\n"):
        with pytest.raises(NotReady):
            await ask()
        append(log, text)
    await ask()
    assert seen == ["a", "b", "cd", "e", "ready"]


async def test_a_poll_waits_for_a_line(log: Path) -> None:
    """Through all that can happen to a file."""
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def write() -> None:
            for step in (
                lambda: append(log, "one\n"),
                lambda: log.rename(f"{log}.1"),
                lambda: append(log, "two\n"),
                lambda: log.write_text("three\n"),
                log.unlink,
                lambda: append(log, "ready\n"),
            ):
                step()
                await trio.sleep(0.02)

        await poll(log_line(log, "ready"), every=0.005, timeout=60)


async def test_each_poll_begins_at_the_beginning(log: Path) -> None:
    """What one has read, another has not; also of the same object."""
    append(log, "ready\n")
    question = poll(log_line(log, "ready"), every=0.01)
    assert [(await question)[0], (await question)[0]] == ["ready", "ready"]


async def test_two_polls_at_once_do_not_disturb_each_other(log: Path) -> None:
    """Each finds the line."""
    question = poll(log_line(log, "ready"), every=0.001, timeout=60)
    found: list[str] = []

    async def one() -> None:
        found.append((await question)[0])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        nursery.start_soon(one)
        append(log, "starting\n")
        await trio.sleep(0.02)
        append(log, "ready\n")
    assert found == ["ready", "ready"]


async def test_a_second_run_does_not_see_the_line_of_the_first_if_the_file_is_removed(log: Path) -> None:
    """Nothing is kept from the poll before."""
    question = poll(log_line(log, "ready"), every=0.01, timeout=0.05)
    append(log, "ready\n")
    await question
    os.unlink(log)
    with pytest.raises(CheckTimeout, match="there is no such file"):
        await question
    append(log, "starting\n")
    with pytest.raises(CheckTimeout, match="no line matches"):
        await question


async def test_a_file_that_was_rotated(log: Path) -> None:
    """The new one is read from its beginning, however long it is."""
    append(log, "a\nb\n")
    await polled(log, "ready", lambda: log.rename(f"{log}.1"), lambda: append(log, "ready\n" + "x\n" * 1000))


async def test_a_file_that_was_truncated(log: Path) -> None:
    """It is shorter."""
    append(log, "a\nb\nc\nd\n")
    await polled(log, "ready", lambda: log.write_text("ready\n"))


async def test_a_file_that_was_truncated_and_has_grown(log: Path) -> None:
    """It is longer than it was, and what stands there is another text."""
    append(log, "a\nb\n")
    await polled(log, "ready", lambda: log.write_text("ready\n" + "x\n" * 1000))


async def test_a_file_that_was_replaced(log: Path) -> None:
    """The new one may have the inode of the old."""
    append(log, "a\nb\n")

    def replace() -> None:
        log.unlink()
        append(log, "ready\n" + "x\n" * 1000)

    await polled(log, "ready", replace)


async def test_a_file_that_was_replaced_by_one_that_looks_the_same(log: Path) -> None:
    """It is another file, whatever stands where the reading has stopped."""
    append(log, "start\n" + "x\n" * 1000)

    def replace() -> None:
        new = log.with_name("new")
        append(new, "ready\n" + "x\n" * 1000)
        os.replace(new, log)

    await polled(log, "ready", replace)


async def test_long_lines_are_recognized_by_their_ends(log: Path) -> None:
    """What is kept of a file is little."""
    append(log, "x" * 100_000 + "\n")
    await polled(log, "ready", lambda: append(log, "y\n"), lambda: append(log, "ready\n"))


async def test_a_cancellation_ends_the_reading(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some lines, not at the end of the file."""
    append(log, "x\n" * 10_000 + "ready\n")
    look = trio.from_thread.check_cancelled
    looks: list[int] = []
    scope = trio.CancelScope()

    def cancel_and_look() -> None:
        looks.append(1)
        trio.from_thread.run_sync(scope.cancel)
        look()

    monkeypatch.setattr(trio.from_thread, "check_cancelled", cancel_and_look)
    with scope:
        await probe(log_line(log, "ready"))
    assert scope.cancelled_caught
    assert looks == [1]


async def test_what_cannot_be_read_has_failed(log: Path, tmp_path: Path) -> None:
    """Waiting does not cure that."""
    with pytest.raises(CheckFailed, match="IsADirectoryError"):
        await probe(log_line(tmp_path, "ready"))


def test_its_name_says_what_is_looked_for() -> None:
    """And where."""
    assert log_line("a/b", "x y").name == "log line 'x y' in a/b"


@pytest.mark.parametrize(
    ("given", "kind", "told"),
    [
        (("", "x"), ValueError, "log_line: the path is empty"),
        ((5, "x"), TypeError, "log_line: 5 is not a path"),
        (("x", "("), ValueError, r"log_line: pattern='\(' is no regular expression"),
        (("x", b"y"), TypeError, "log_line: pattern=b'y' is not a str"),
        (("x", re.compile(b"y")), TypeError, "is not a str, nor a compiled pattern of one"),
        (("x", None), TypeError, "log_line: pattern=None is not a str"),
    ],
)
def test_bad_arguments_are_refused_by_name(given: tuple[Any, Any], kind: type[Exception], told: str) -> None:
    """When the check is made."""
    with pytest.raises(kind, match=told):
        log_line(*given)
