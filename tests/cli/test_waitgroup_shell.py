"""konductor's shell patterns with `koncli` read as `grouper`, after a `create`: under bash, with real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from .conftest import Command, Starting, Terminal

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.usefixtures("path"),
    pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here"),
]


def bash(script: str, folder: Path) -> list[str]:
    """The lines that a script prints, which ends well: on any failure in it, it ends at once."""
    done = subprocess.run(
        ["bash", "-c", f"set -euo pipefail\n{script}"], cwd=folder, check=False, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


TEN_WORKERS = """
grouper waitgroup create batch
grouper waitgroup add batch --delta 10
for i in {1..10}; do
    (
        echo "$i" >> results
        grouper waitgroup done batch > /dev/null
    ) &
done
grouper waitgroup wait batch --timeout 30m
wc -l < results
"""


def test_ten_workers_and_a_coordinator(command: Command, tmp_path: Path) -> None:
    """The coordinator goes on when all are done."""
    assert bash(TEN_WORKERS, tmp_path) == ["batch: created", "batch: 10", "batch: Done", "10"]


DYNAMIC_WORKERS = """
grouper waitgroup create jobs
worker() {
    set -e
    grouper waitgroup add jobs --delta 1
    echo "$1" >> results
    grouper waitgroup done jobs
}
workers=()
for i in {1..8}; do
    worker "$i" > /dev/null & workers+=($!)
done
for worker in "${workers[@]}"; do
    wait "$worker"
done
grouper waitgroup wait jobs --timeout 30m
grouper waitgroup status jobs -o json
wc -l < results
"""


def test_dynamic_workers(command: Command, tmp_path: Path) -> None:
    """Each adds itself. All end well, also at once: konductor fails calls that were made while others were (K10)."""
    _, done, status, results = bash(DYNAMIC_WORKERS, tmp_path)
    assert (done, results) == ("jobs: Done", "8")
    assert json.loads(status)["status"]["counter"] == 0


PIPELINE = """
stages=(fetch build ship)
for stage in "${stages[@]}"; do
    grouper waitgroup create "$stage" --count 2 > /dev/null
done
before=
for stage in "${stages[@]}"; do
    for i in 1 2; do
        (
            if [[ -n $before ]]; then
                grouper waitgroup wait "$before" --timeout 30m > /dev/null
            fi
            echo "$stage" >> results
            grouper waitgroup done "$stage" > /dev/null
        ) &
    done
    before=$stage
done
grouper waitgroup wait "$before" --timeout 30m
cat results
"""


def test_pipeline_of_stages(command: Command, tmp_path: Path) -> None:
    """Each stage waits for the group of the one before; all were started together."""
    assert bash(PIPELINE, tmp_path) == ["ship: Done", *["fetch"] * 2, *["build"] * 2, *["ship"] * 2]


TWO_COORDINATORS = """
coordinator() {
    grouper waitgroup create "$1-batch" > /dev/null
    grouper waitgroup add "$1-batch" --delta 2 > /dev/null
    for i in 1 2; do
        (grouper waitgroup done "$1-batch" > /dev/null) &
    done
    grouper waitgroup wait "$1-batch" --timeout 30m
    grouper waitgroup add "$1-batch" --delta "$2"
}
coordinator blue 3 > blue & a=$!
coordinator green 5 > green & b=$!
wait $a
wait $b
cat blue green
grouper waitgroup list blue-
"""


def test_two_coordinators_on_one_store(command: Command, tmp_path: Path) -> None:
    """Names that differ by a prefix are konductor's namespaces; neither sees the other's."""
    *lines, header, row = bash(TWO_COORDINATORS, tmp_path)
    assert lines == ["blue-batch: Done", "blue-batch: 3", "green-batch: Done", "green-batch: 5"]
    assert header.split()[0] == "NAME"
    assert row.split() == ["blue-batch", "3", "Waiting", "0", "0"]


SCRIPT = """
grouper waitgroup create batch --count 1
grouper waitgroup {}
echo "status $?"
"""


@pytest.mark.parametrize("verb", ["wait batch", "run batch -- sh -c 'echo left >&2; exec sleep 60'"])
def test_ctrl_c_ends_the_script_too(command: Command, start: Starting, terminal: Terminal, verb: str) -> None:
    """It does not go on with its next line, as bash does when what it waits for exits instead of dying of the signal."""
    started = start.program("bash", "-c", SCRIPT.format(verb), stdout=subprocess.PIPE, stderr=terminal.file, start_new_session=True)
    terminal.read_until("left")
    os.killpg(started.process.pid, signal.SIGINT)
    found = started.end()
    assert (found.status, found.out) == (-signal.SIGINT, "batch: created\n")


def test_shell_sees_130(command: Command) -> None:
    """Though the process dies of the signal."""
    script = "grouper waitgroup create batch; grouper waitgroup run batch -- sh -c 'kill -INT $$'; echo $?"
    done = subprocess.run(["bash", "-c", f"trap : INT; {script}"], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["batch: created", "130"]
