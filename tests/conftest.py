"""How the tests run: a mock clock that jumps where everybody waits, and a scheduler whose shuffling can be repeated."""

from __future__ import annotations

import gc
import os
import random
import sys
from collections.abc import Awaitable, Callable, Generator, Sequence
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


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have the garbage collector pass over what is there for good: to look at it costs more than all that the tests throw away."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def compiled_programs(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """Where no bytecode is to be written, let the programs that tests start keep theirs in a folder of this session."""
    with pytest.MonkeyPatch.context() as patch:
        if sys.dont_write_bytecode:
            shared = tmp_path_factory.getbasetemp()
            shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
            patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
            patch.setenv("PYTHONPYCACHEPREFIX", str(shared / "bytecode"))
        yield
