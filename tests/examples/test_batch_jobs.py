"""A batch of jobs in several processes, from a shell."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .program import EXAMPLES

pytestmark = [pytest.mark.real_time, pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")]

GROUPER = shlex.join([sys.executable, "-m", "grouper"])


def test_all_three_ways(tmp_path: Path) -> None:
    """Jobs are done, the member that was killed is told, and stages come one after the other; nothing is left behind."""
    environment = {**os.environ, "GROUPER": GROUPER, "TMPDIR": str(tmp_path)}
    environment.pop("GROUPER_STORE", None)
    done = subprocess.run(
        [str(EXAMPLES / "batch_jobs.sh")], check=False, capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.returncode == 0, done.stderr
    lines = [re.sub(r"batch-\d+", "batch", line) for line in done.stdout.splitlines()]
    tickets, members, stages = (lines.index(f"== {name}") for name in ("tickets", "members", "stages"))
    assert sorted(lines[tickets + 2 : tickets + 6]) == [f"part {part} is done" for part in (1, 2, 3, 4)]
    assert lines[tickets + 6 : members] == ["batch: Done", "batch: deleted"]
    assert sorted(lines[members + 3 : members + 5]) == ["part 1 is done", "part 3 is done"]
    assert lines[members + 5 : stages] == [
        "batch: Done, 1 lost",
        "some were lost: their work is to be done again",
        "batch: deleted",
    ]
    assert [line.split()[0] for line in lines[stages + 4 : stages + 10]] == ["fetch", "fetch", "build", "build", "ship", "ship"]
    assert "lost 1, whose process died or whose time ran out" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_store_may_be_given(tmp_path: Path) -> None:
    """It is kept, and without what the script has made in it."""
    url = f"sqlite:{tmp_path / 'jobs.db'}"
    grouper = tmp_path / "grouper"
    grouper.write_text(f'#!/bin/sh\nexec {GROUPER} "$@"\n')
    grouper.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "GROUPER_STORE": url}
    environment.pop("GROUPER", None)
    script = str(EXAMPLES / "batch_jobs.sh")
    done = subprocess.run([script], check=False, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    listed = subprocess.run([str(grouper), "waitgroup", "list", "-o", "json"], check=True, capture_output=True, env=environment)
    assert listed.stdout == b"[]\n"
