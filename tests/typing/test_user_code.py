"""The code that type-checks also runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from grouper import Member
from grouper.runner import RunnerLike

from . import user_code


@pytest.mark.parametrize("function", user_code.every)
async def test_it_runs(function: Callable[[], Awaitable[object]]) -> None:
    """What users write, and the type checkers accept, does what it says."""
    await function()


async def test_what_it_says() -> None:
    """The loops over events and the trace were gone through, and not around."""
    assert await user_code.listen_to_events() == ["a started", "b started", "a ended", "b ended"]
    assert await user_code.read_a_trace() == "1 of 1 members failed:\n  a: OSError: gone  <- first"


@pytest.mark.parametrize("runner", user_code.runners)
def test_every_runner_is_taken(runner: RunnerLike) -> None:
    """What the type checkers take for a runner is one."""
    Member("a", runner)
