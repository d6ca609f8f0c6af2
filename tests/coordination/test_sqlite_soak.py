"""What `test_sqlite_kills` shows in a second, for minutes: 64 programs, 1,000 kills, 10,000 hand-overs of a lock."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .test_lock_kills import handed_over
from .test_sqlite_kills import BASE, churned, counter, killed_while_awaited, opened_and_closed, tallied, url

__all__ = ["url"]  # a fixture

pytestmark = [pytest.mark.real_time, pytest.mark.soak]


def report(text: object) -> None:
    """Figures, for who runs this with -s."""
    sys.stdout.write(f"\n{text}\n")


@pytest.mark.parametrize("programs", [8, 64])
def test_a_thousand_programs_killed_at_random(programs: int, url: str, tmp_path: Path) -> None:
    """No acknowledged change is lost, none is made twice, some of those in flight had been made and some not; the file is sound."""
    found = tallied(url, tmp_path, programs, kills=1_000)
    report(found)
    assert found.acknowledged > 10_000
    assert found.in_flight[True] > 0
    assert found.in_flight[False] > 0


@pytest.mark.parametrize("programs", [8, 64])
def test_nobody_starves(programs: int, url: str) -> None:
    """In 10 seconds the slowest changes at least a tenth of what the fastest does."""
    times = churned(url, programs, 10)
    report(f"{programs} programs: {min(times)} to {max(times)} times each, {2 * sum(times) / 10:.0f} changes a second")
    assert min(times) >= max(times) / 10
    assert counter(url) == BASE


def test_store_opened_and_closed_by_sixty_four_at_a_time(url: str) -> None:
    """As by that many commands."""
    opened_and_closed(url, 64, 100)


async def test_lost_are_those_that_were_killed_in_many_rounds(url: str) -> None:
    """Up to 16 members, in 100 rounds."""
    report(f"killed: {await killed_while_awaited(url, rounds=100, most=16)}")


@pytest.mark.parametrize("programs", [3, 8])
def test_lock_never_has_two_holders_in_ten_thousand_hand_overs(programs: int, url: str, tmp_path: Path) -> None:
    """With kills and pauses at random."""
    happened = handed_over(url, tmp_path / "book", programs, times=10_000)
    report(dict(happened))
    assert happened["killed"] > 20
    assert happened["taken over"] > 10
    assert happened["paused"] > 20
