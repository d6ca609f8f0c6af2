"""The tests of wait groups ask for a store of each kind, or for the command on a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Command, Starting
from tests.coordination.meeting import etcd, meeting

__all__ = ["command", "etcd", "meeting", "start"]


@pytest.fixture
def command(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command in this process, on a file that is the default of those it starts, too."""
    url = f"sqlite:{tmp_path / 'store.db'}"
    monkeypatch.setenv("GROUPER_STORE", url)
    return Command(capfd, url)


@pytest.fixture
def start() -> Iterator[Starting]:
    """The command as processes, which do not outlive the test."""
    starting = Starting()
    yield starting
    for process in starting.started:
        process.kill()
        process.communicate()
