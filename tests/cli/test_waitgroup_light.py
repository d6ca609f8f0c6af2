"""What the verbs of `grouper` do without: a script that calls one a hundred times waits a hundred times for its imports."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

from .conftest import Command

pytestmark = pytest.mark.real_time

CALL: Final = """
import sys
from grouper.cli import main
for words in sys.argv[1:]:
    assert main(["waitgroup", *words.split()]) == 0, words
print("loaded", *sys.modules)
"""

CHANGES: Final = ("create new", "add batch --delta 3", "add batch --tickets --token t", "done batch --token u", "delete new")
QUESTIONS: Final = ("status batch", "list", "list -o json", "wait empty --timeout 1s", "run batch -- true")
HEAVY: Final = {"trio", "uuid", "subprocess", "inspect", "dataclasses", "logging", "asyncio", "shutil", "rich"}


def loaded(*verbs: str) -> set[str]:
    """The modules that a fresh interpreter has when it has carried out these verbs."""
    words = [sys.executable, "-I", "-c", CALL, *verbs]
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60)
    return set(done.stdout.splitlines()[-1].split())


def test_changes_are_light(command: Command) -> None:
    """Without trio and attrs, and what else takes longer than the change."""
    command("create", "batch")
    assert loaded(*CHANGES) & (HEAVY | {"attr", "attrs", "json", "signal", "select"}) == set()


def test_questions_need_no_event_loop(command: Command) -> None:
    """On a store of this machine; nor does `run`."""
    command("create", "batch")
    command("create", "empty")
    assert loaded(*QUESTIONS) & {"trio", "asyncio"} == set()


def test_command_itself_is_light(command: Command) -> None:
    """`grouper --version` and what is wrong need no store."""
    words = [sys.executable, "-I", "-c", "import sys; from grouper.cli import main; main(['--version']); print(*sys.modules)"]
    modules = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout.split()
    assert {"sqlite3", "grouper.coordination.store", *HEAVY} & set(modules) == set()
