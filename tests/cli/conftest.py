"""The command in the test's own process, on a store of its own: by either driver, or as a process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import attrs
import pytest

from grouper.cli import main
from grouper.coordination import opening

from .screen import screen

GROUPER = (sys.executable, "-m", "grouper")


T = TypeVar("T")


def always(value: T) -> Callable[..., T]:
    """A function that returns this, whatever it is given."""

    def returning(*_: object, **__: object) -> T:
        return value

    return returning


@attrs.frozen
class Said:
    """What a command line came to."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The output, which is json."""
        return json.loads(self.out)


@attrs.frozen
class Command:
    """`grouper waitgroup` in this process."""

    capture: pytest.CaptureFixture[str]
    store: str

    def __call__(self, *words: object) -> Said:
        status = main(["waitgroup", *map(str, words)])
        captured = self.capture.readouterr()
        return Said(status, captured.out, captured.err)

    def counter(self, name: str) -> int:
        """What a group counts."""
        counter: int = self("status", name, "-o", "json").document["status"]["counter"]
        return counter


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where processes keep what they have compiled: there are many, and each would do it again."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def url(tmp_path: Path, compiled: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store in a file, which is this process's default and that of those it starts."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(compiled))
    url = f"sqlite:{tmp_path / 'store.db'}"
    monkeypatch.setenv("GROUPER_STORE", url)
    return url


@pytest.fixture
def command(url: str, capfd: pytest.CaptureFixture[str]) -> Command:
    """The command on that file."""
    return Command(capfd, url)


@pytest.fixture(params=["inline", "trio"])
def either(request: pytest.FixtureRequest, url: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command by either driver: without an event loop, and in trio, as on stores that are not of this machine."""
    if request.param == "trio":
        monkeypatch.setattr(opening, "open_inline", always(None))
    return Command(capfd, url)


@attrs.define(eq=False)
class Started:
    """`grouper waitgroup` as a process."""

    process: subprocess.Popen[str]

    def end(self) -> Said:
        """Wait until it has ended."""
        out, err = self.process.communicate(timeout=30)
        return Said(self.process.returncode, out or "", err or "")

    def line(self) -> str:
        """The next line of its output."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()


class Terminal:
    """A terminal, whose other end is `file`."""

    def __init__(self) -> None:
        self.written: str = ""
        self._ours, self.file = os.openpty()

    def read_until(self, pattern: str) -> re.Match[str]:
        """Read until there is such text in all that was written."""
        while not (match := re.search(pattern, self.written)):
            self.written += os.read(self._ours, 65536).decode()
        return match

    def write(self, text: str) -> None:
        """Press keys."""
        os.write(self._ours, text.encode())

    def hang_up(self) -> None:
        """Close the end that is given to processes, so that the last of them to end ends what is written."""
        os.close(self.file)
        self.file = -1

    def lines(self) -> list[str]:
        """What can be seen when all processes have ended."""
        self.hang_up()
        while text := _read(self._ours):
            self.written += text.decode()
        return [line for line in screen(self.written) if line]

    def close(self) -> None:
        """Give it back."""
        for number in (self._ours, self.file):
            if number >= 0:
                os.close(number)


def _read(number: int) -> bytes:
    try:
        return os.read(number, 65536)
    except OSError:  # nobody has the other end any more
        return b""


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A terminal."""
    terminal = Terminal()
    yield terminal
    terminal.close()


@attrs.define
class Starting:
    """Starts it."""

    program_of_command: tuple[str, ...] = GROUPER
    started: list[subprocess.Popen[str]] = attrs.field(factory=list[subprocess.Popen[str]])

    def __call__(self, *words: object, **options: Any) -> Started:
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return self.program(*self.program_of_command, "waitgroup", *map(str, words), **options)

    def program(self, *argv: str, **options: Any) -> Started:
        """Start another program."""
        process = subprocess.Popen(argv, text=True, **options)
        self.started.append(process)
        return Started(process)


@pytest.fixture
def start(url: str) -> Iterator[Starting]:
    """Start processes, which do not outlive the test."""
    starting = Starting()
    yield starting
    for process in starting.started:
        if process.poll() is None:
            process.kill()
        process.wait()
        for file in (process.stdin, process.stdout, process.stderr):
            if file is not None:
                file.close()


IN_TRIO = """
import sys
from grouper.cli import main
from grouper.coordination import opening
opening.open_inline = lambda url=None: None
sys.exit(main())
"""


@pytest.fixture(params=["inline", "trio"])
def start_either(request: pytest.FixtureRequest, start: Starting) -> Starting:
    """Start processes that use either driver."""
    if request.param == "trio":
        start.program_of_command = (sys.executable, "-c", IN_TRIO)
    return start


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is first in PATH, in which there is `grouper`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "grouper"
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom grouper.cli import main\nsys.exit(main())\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder
