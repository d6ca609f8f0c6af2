"""Programs that hold a lock in turns, and are killed and paused at random moments."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from grouper.coordination import open_store

pytestmark = [
    pytest.mark.soak,
    pytest.mark.real_time,
    pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc"),
]

PROGRAMS = 6
HAND_OVERS = 10_000


def start(url: str, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.coordination.contender", url, str(folder)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2])


def ended(program: subprocess.Popen[bytes]) -> str:
    """Kill a program; what it said if it had not waited for that."""
    by_itself = program.poll() is not None
    program.kill()
    _, said = program.communicate()
    return said.decode() if by_itself else ""


async def test_never_two_holders_and_rising_tokens(tmp_path: Path) -> None:
    """10,000 hand-overs; a kill or a pause every 50 ms. In the end nobody is in the queue."""
    url = f"sqlite:{tmp_path / 'store.db'}"
    tokens = tmp_path / "tokens"
    for path in (tokens, tmp_path / "holder"):
        path.write_text("")
    chance = random.Random(1)
    programs = [start(url, tmp_path) for _ in range(PROGRAMS)]
    kills = pauses = 0
    try:
        while tokens.read_bytes().count(b"\n") < HAND_OVERS:
            await trio.sleep(0.05)
            chosen = chance.randrange(PROGRAMS)
            if chance.random() < 0.3:
                assert ended(programs[chosen]) == ""
                programs[chosen] = start(url, tmp_path)
                kills += 1
            else:
                os.kill(programs[chosen].pid, signal.SIGSTOP)
                await trio.sleep(chance.random() / 20)
                os.kill(programs[chosen].pid, signal.SIGCONT)
                pauses += 1
            for program in programs:
                assert program.poll() is None, ended(program)
    finally:
        said = [ended(program) for program in programs]
    assert said == [""] * PROGRAMS
    given = [int(line) for line in tokens.read_text().split("\n")[:-1]]
    assert given == sorted(set(given))
    assert kills + pauses > 20
    async with open_store(url) as store:
        assert await store.entries("lock", "leader") == ()
    print(f"{len(given)} hand-overs, {kills} kills, {pauses} pauses")  # noqa: T201 (what was measured)
