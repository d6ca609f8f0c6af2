"""docs/coordination.md, docs/troubleshooting.md and what the README says of them: each block does what it says."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any, Final

import attrs
import pytest

from grouper.cli.arguments import VERBS
from grouper.coordination import Unavailable, open_store
from grouper.coordination.etcd.gateway import ADVICE as ADVICE_ON_ETCD
from grouper.coordination.sqlite.trouble import ADVICE

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = ("docs/coordination.md", "docs/troubleshooting.md", "README.md")


@attrs.frozen
class Block:
    """A block of a page, under a heading; what it prints, where that is the next block."""

    page: str
    heading: str
    kind: str
    text: str
    prints: str | None = None

    @property
    def name(self) -> str:
        return f"{Path(self.page).stem}: {self.heading}"


def blocks(page: str) -> list[Block]:
    found: list[Block] = []
    heading = ""
    for title, kind, body in re.findall(r"^(#+ .*?)$|^```(\w+)\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE):
        if title:
            heading = title.lstrip("# ")
        elif kind == "text" and found and found[-1].kind == "python":
            found[-1] = attrs.evolve(found[-1], prints=body)
        else:
            found.append(Block(page, heading, kind, body))
    return found


BLOCKS: Final = [block for page in PAGES for block in blocks(page)]
SHELL: Final = [block for block in BLOCKS if block.kind == "console"]
PROGRAMS: Final = [block for block in BLOCKS if block.kind == "python" and block.prints is not None]

pytestmark = pytest.mark.real_time


def as_told(text: str) -> list[str]:
    """The lines of an output without what is different each time."""
    for pattern, said in (
        (r"(?m)^(\S+) +\S+ +\d+ +(?:\d+[dhms])+$", r"\1 HOST PID AGE"),  # of a member
        (r"(?m)^age +(?:\d+[dhms])+$", "age AGE"),
        (r"(?m)^(token \d+): pid \d+ on \S+ since \d+$", r"\1: pid PID on HOST since TIME"),
        (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
        (r"(?m)^.*line \d+: +\d+ Killed .*\n", ""),  # the shell's own
        (r" +", " "),
    ):
        text = re.sub(pattern, said, text)
    return [line.rstrip() for line in text.splitlines()]


PROLOGUE: Final = """
exec 2>&1
exec 9<>began
"""


def script(block: Block) -> str:
    """What is typed in a block, as a script that prints its commands too. It goes on when what is in the background has begun."""
    lines = [PROLOGUE]
    for command in re.findall(r"^\$ (.*\n(?:> .*\n)*)", block.text, re.MULTILINE):
        typed = command.replace("\n> ", "\n")
        lines.append(f"status=$?; cat <<'TYPED'\n$ {command}TYPED\n(exit $status)\n{typed}")
        if re.search(r"waitgroup run .*sleep 600 &\n$", typed):
            lines.append("read -r -u 9\n")
    return "".join(lines)


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the pages take for granted: the command, some work, a store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")  # bash tells of killed processes in the user's language
    monkeypatch.setenv("GROUPER_STORE", f"sqlite:{tmp_path}/store.db")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "bin").mkdir()
    executable(tmp_path / "bin" / "grouper", f"#!{sys.executable}\nimport sys\nfrom grouper.cli import main\nsys.exit(main())\n")
    executable(tmp_path / "bin" / "sleep", f'#!/bin/sh\n[ "$1" = 600 ] && echo >{tmp_path}/began\nexec /bin/sleep "$@"\n')
    executable(tmp_path / "work.sh", "#!/bin/sh\n")
    os.mkfifo(tmp_path / "began")
    return tmp_path


@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.name)
def test_what_is_typed_prints_what_stands_below_it(block: Block, place: Path) -> None:
    """Output and errors, in that order."""
    with open(place / "out", "wb") as out:
        shell = subprocess.Popen(["bash", "-c", script(block)], stdout=out, start_new_session=True)
    try:
        shell.wait(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
    printed = (place / "out").read_text().replace(str(place), "/srv")
    assert as_told(printed) == as_told(block.text)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: block.name)
async def test_a_program_prints_what_stands_below_it(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole of it, and in that order."""
    assert block.prints is not None
    names: dict[str, Any] = {"__name__": "program"}
    exec(compile(block.text, block.name, "exec"), names)
    await names["main"]()
    assert as_told(capsys.readouterr().out) == as_told(block.prints)


def test_the_program_of_the_readme_leads_once(place: Path) -> None:
    """The second one does when the first one was told to stop."""
    (program,) = [block.text for block in BLOCKS if block.page == "README.md" and "Lock(" in block.text]
    (place / "program.py").write_text(program)
    started: list[subprocess.Popen[str]] = []
    ends: dict[IO[str], subprocess.Popen[str]] = {}
    try:
        while len(started) < 2:
            process = subprocess.Popen([sys.executable, "program.py"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            started.append(process)
            assert process.stdout is not None
            ends[process.stdout] = process
        while ends:
            (leads, *others), _, _ = select.select(list(ends), [], [], 30)
            assert (leads.readline(), others) == ("this one sends the mail\n", [])
            leader = ends.pop(leads)
            assert all(process.poll() is None for process in ends.values())
            leader.terminate()
            assert leader.wait(timeout=30) == 0
    finally:
        for process in started:
            process.kill()
            process.communicate()


def test_all_blocks_are_found() -> None:
    """A block of the shell or a program that nobody runs would tell anything."""
    assert len(SHELL) >= 12
    assert len(PROGRAMS) >= 4
    pages = [block for block in BLOCKS if block.page != "README.md"]
    assert {block.kind for block in pages} == {"console", "python", "text"}
    assert all(block.prints is not None for block in pages if block.kind == "python")


# --- what the pages say of errors


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


@pytest.mark.parametrize("advice", [*ADVICE.values(), *[advice for _, advice in ADVICE_ON_ETCD]])
def test_each_advice_of_a_store_is_explained(advice: str) -> None:
    """In the words in which it is given."""
    assert advice in page("troubleshooting.md")


async def test_an_etcd_that_cannot_be_reached_says_what_stands_there() -> None:
    """But for the time, which is long, and for why the last try failed."""
    (shown,) = [block.text for block in blocks("docs/troubleshooting.md") if block.kind == "text"]
    with pytest.raises(Unavailable) as caught:
        await open_store("etcd://127.0.0.1:1/grouper", timeout=1).waitgroup("batch").status()
    told = f"grouper: {caught.value}".replace(" 1 s", " 10 s").partition(" (")[0]
    assert as_told(told) == as_told(shown.partition(" (")[0])


@pytest.mark.parametrize("name", ["coordination.md", "troubleshooting.md", "conformance-waitgroup.md"])
def test_what_a_page_refers_to_is_there(name: str) -> None:
    """The page, and the heading in it."""
    for target, heading in re.findall(r"\]\(([\w.-]*)#?([\w-]*)\)", page(name)):
        headings = re.findall(r"^#+ (.*)$", page(target or name), re.MULTILINE)
        assert not heading or heading in [re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings]


def test_each_verb_of_the_command_is_told() -> None:
    """And no verb that there is not."""
    text = page("coordination.md") + page("troubleshooting.md")
    told = set(re.findall(r"grouper waitgroup ([a-z]+)", text))
    assert told <= set(VERBS)
    assert set(VERBS) <= set(re.findall(r"`?([a-z]+)", text))
