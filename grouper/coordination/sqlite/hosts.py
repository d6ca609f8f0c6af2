"""What the system knows of processes and file systems: who is who, and where a file must not be."""

from __future__ import annotations

import functools
import os
from typing import Final

from ..errors import Unavailable

__all__ = ["identity", "require_local", "runs"]

REMOTE: Final = frozenset(
    ("afs", "afpfs", "beegfs", "ceph", "cifs", "coda", "fuse.cephfs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs")
    + ("gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "smb2", "smb3", "smbfs")
)
"""File systems on which locks, or shared memory, do not reach all who have the file open."""


def identity() -> tuple[str, int, str, str, str]:
    """The calling process: host, pid, the boot of its kernel, its pid namespace, and when it was started, in the kernel's ticks."""
    return _identity(os.getpid())


@functools.cache
def _identity(pid: int) -> tuple[str, int, str, str, str]:
    return os.uname().nodename, pid, _boot(), _namespace(), _started(pid) or ""


def runs(pid: int, boot: str, ns: str, started: str) -> bool:
    """Whether that very process can be seen from here and runs; a zombie does not."""
    *_, here, namespace, _ = identity()
    return bool(started) and (boot, ns) == (here, namespace) and _started(pid) == started


def require_local(path: str, mounts: str = "/proc/self/mountinfo") -> None:
    """Raises: Unavailable if the file is, or would be, on a file system of the network."""
    try:
        device = os.stat(os.path.dirname(os.path.abspath(path))).st_dev
        with open(mounts, encoding="utf-8", errors="surrogateescape") as lines:
            number = f"{os.major(device)}:{os.minor(device)}"
            kinds = {line.partition(" - ")[2].split(" ", 1)[0] for line in lines if line.split(" ", 3)[2] == number}
    except OSError:
        return  # not Linux, or no such folder, which opening the file will tell
    if remote := kinds & REMOTE:
        raise Unavailable(
            f"the store {path} is on a network file system ({min(remote)}), where its locks do not hold: "
            "name a file on a local disk, or use etcd for several machines"
        )


def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """When a process was started; None if it is not there, or dead and not waited for yet."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            state, *fields = file.read().rpartition(") ")[2].split()
    except OSError:
        return None
    return None if state in "ZXx" else fields[18]
