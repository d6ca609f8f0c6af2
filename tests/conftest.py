"""How the tests run: a mock clock that jumps where everybody waits, and a scheduler whose shuffling can be repeated."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import trio
import trio.testing

SCHEDULER: Any = trio._core._run  # pyright: ignore  # trio has no public seed


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--trio-seed", type=int, default=0, help="seed of trio's scheduler, for each test alike (default 0)")


@pytest.fixture(autouse=True)
def seeded_scheduler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Make the order in which trio runs what is runnable depend on `--trio-seed` alone; its value is the fixture's."""
    seed = int(request.config.getoption("--trio-seed") or 0)
    monkeypatch.setattr(SCHEDULER, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    monkeypatch.setattr(SCHEDULER, "_r", random.Random(seed))
    return seed


def run_with_mock_clock(
    main: Callable[[], Awaitable[Any]],
    clock: trio.abc.Clock | None = None,
    instruments: Sequence[trio.abc.Instrument] = (),
) -> Any:
    """Run a test in time that passes only when all tasks wait for it."""
    return trio.run(main, clock=clock or trio.testing.MockClock(autojump_threshold=0), instruments=instruments)


@pytest.hookimpl(trylast=True)  # after pytest-trio marked the async tests
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("trio") is not None and item.get_closest_marker("real_time") is None:
            item.add_marker(pytest.mark.trio(run=run_with_mock_clock), append=False)
