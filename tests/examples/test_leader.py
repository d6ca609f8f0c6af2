"""Three programs of which one leads; it is killed, and the next one takes over."""

from __future__ import annotations

import importlib
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

import grouper
from grouper import State
from grouper.coordination import MemoryStore, open_store
from tests.groups.members import watched

from .program import started

leader: Any = importlib.import_module("examples.leader")


def ledger(folder: Path) -> list[tuple[int, str]]:
    """Who wrote to it, and with which token."""
    lines = [line.split(maxsplit=1) for line in (folder / "ledger.txt").read_text().splitlines()]
    return [(int(token), text) for token, text in lines]


@pytest.mark.real_time
@pytest.mark.skipif(sys.platform == "win32", reason="it kills with SIGKILL")
@pytest.mark.parametrize("named", [False, True])
async def test_next_program_takes_over_when_the_leader_is_killed(named: bool, tmp_path: Path) -> None:
    """Status 0: the others have stopped in order. The store is in the folder, or where it is told."""
    place = tmp_path / "folder"
    url = f"sqlite:{tmp_path / 'other.db' if named else place / 'leader.db'}"
    async with started("leader.py", place, *(["--store", url] if named else [])) as program:
        assert await program.end() == 0
    (killed,) = program.told(r"^(program-\d) is killed$")
    (second,) = program.told(r"^(program-\d) took over within \d+ ms$")
    leaders = program.told(r"^(program-\d) leads")
    assert leaders[:2] == [killed, second]
    assert killed != second
    assert killed not in program.told(r"^(program-\d) has stopped")
    assert second in program.told(r"^(program-\d) has stopped")
    written = ledger(place)
    assert [text for _, text in written] == [f"{name} leads" for name in leaders]
    assert [token for token, _ in written] == sorted({token for token, _ in written})
    async with open_store(url) as store:
        assert await store.present() == ()


@pytest.mark.real_time
async def test_it_ends_at_ctrl_c_with_its_programs() -> None:
    """None is left behind: their output ends with it."""
    async with started("leader.py") as program:
        await program.line("leads with token")
        program.signal(signal.SIGINT)
        assert await program.end() != 0


async def test_a_program_is_a_tree_whose_server_exists_where_it_leads(tmp_path: Path) -> None:
    """The others are present, and wait."""
    store = MemoryStore()
    book = leader.Ledger(tmp_path / "ledger.txt")
    first = leader.program(store, "a", book)
    second = leader.program(store.process(), "b", book)
    async with grouper.invoke(first), watched(second) as process:
        assert [child.state for child in process.children] == [State.READY, State.STARTING, State.WAITING]
        assert [entry.name for entry in await store.present()] == ["a", "b"]
    assert [text for _, text in ledger(tmp_path)] == ["a leads"]


def test_ledger_refuses_a_leader_that_was_replaced(tmp_path: Path) -> None:
    """By its token; the last one may write again."""
    book = leader.Ledger(tmp_path / "ledger.txt")
    book.write(3, "a leads")
    book.write(5, "b leads")
    book.write(5, "b goes on")
    with pytest.raises(ValueError, match="the leader with token 3 was replaced: the last has 5"):
        book.write(3, "a goes on")
    assert ledger(tmp_path) == [(3, "a leads"), (5, "b leads"), (5, "b goes on")]
