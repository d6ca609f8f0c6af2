"""The pytest plugin: the fixture `start_runner`.

pytest loads it in every project of the environment in which grouper is installed. So nothing is imported here but pytest, nothing
is changed for tests that do not ask for the fixture, and pytest-trio is needed by those alone that do.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .starting import StartRunner

__all__ = ["start_runner"]


@pytest.fixture
def _in_trio_test(request: pytest.FixtureRequest) -> None:
    """Fail where nobody would run an async fixture."""
    item: pytest.Item = request.node
    if item.get_closest_marker("trio") is None:
        pytest.fail(
            "start_runner is for async tests that pytest-trio runs: install it and mark the test with pytest.mark.trio "
            "(or set trio_mode); elsewhere write `async with grouper.invoke(runner) as process`",
            pytrace=False,
        )


@pytest.fixture
async def start_runner(_in_trio_test: None) -> AsyncGenerator[StartRunner]:
    """Runners that live as long as the test, each ready when the call returns.

    Write `process = await start_runner(runner)`. After the test they are stopped politely, the last started first. A runner that
    fails cancels the test, which then fails with what the runner raised.
    """
    from .starting import starting

    async with starting() as start:
        yield start
