"""Make a folder what a folder of manifests says, as a GitOps reconciler does: jobs with dependencies, so many at a time.

    python reconcile.py generate manifests      300 small JSON files that depend on each other, for a try
    python reconcile.py apply manifests state   apply them, and then whatever changes, until SIGTERM or Ctrl-C
    python reconcile.py apply manifests state --once

The last applies them, in order, and reports; its status is 1 unless all could be. `web.json` is the manifest "web":

    {"kind": "App", "after": ["config"], "image": "web:1.0"}

It is applied when "config" is: `state/web.json` is written. An App without an image fails, and what is after it is skipped. A
Volume makes a disk, `state/disks/NAME`. A Claim is not ready until its disk is there, whoever made it: it is asked for again and
again, which holds up nobody but what is after it. If a manifest changes while it is applied, it is applied once more after that,
however often it has changed.
"""

from __future__ import annotations

import argparse
import contextlib
import graphlib
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import trio

import grouper
from grouper import readiness, work

Stamp: TypeAlias = tuple[int, int, int]

POLL = work.Backoff(0.1, cap=2, on=())
"""When to look again for a disk that is not there. What fails is not tried again before its manifest has changed."""

log = logging.getLogger("reconcile")


class ManifestError(Exception):
    """A manifest cannot be read, or cannot be applied as it is; the text says why."""


@attrs.frozen
class Manifest:
    name: str
    kind: str
    after: tuple[str, ...]
    spec: dict[Any, Any]

    @classmethod
    def read(cls, path: Path) -> Manifest:
        try:
            content = json.loads(path.read_bytes())
        except ValueError as error:
            raise ManifestError(f"{path.name} is not JSON: {error}") from None
        match content:
            case {"kind": str(kind), "after": [*after], **spec} if all(isinstance(name, str) for name in after):
                return cls(path.stem, kind, tuple(after), spec)
            case _:
                raise ManifestError(f'{path.name}: a manifest is {{"kind": "App", "after": ["other"], ...}}')


def write(path: Path, content: object) -> None:
    """Write a file as a whole: who looks meanwhile sees the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(content) + "\n")
    new.replace(path)


async def apply(manifest: Manifest, state: Path, takes: float) -> None:
    """Raises: ManifestError; NotReady as long as a Claim has no disk."""
    log.info("applying %s", manifest.name)
    if manifest.kind == "App" and "image" not in manifest.spec:
        raise ManifestError("an App has an image, and this one has none")
    disk = state / "disks" / str(manifest.spec.get("disk"))
    if manifest.kind == "Claim":
        await readiness.probe(readiness.file(disk))
    if manifest.kind == "Volume":
        await trio.to_thread.run_sync(os.makedirs, disk, 0o777, True)
    await trio.sleep(takes)  # stands for what makes real applying slow
    await trio.to_thread.run_sync(write, state / f"{manifest.name}.json", {"kind": manifest.kind, **manifest.spec})
    log.info("applied %s", manifest.name)


async def remove(name: str, state: Path) -> None:
    await trio.to_thread.run_sync((state / f"{name}.json").unlink, True)
    log.info("removed %s", name)


def apply_once(folder: Path, state: Path, takes: float, limit: int, wait: float) -> int:
    """Run one graph of jobs to its end. Raises: ManifestError or GraphError, and then nothing was applied."""
    manifests = [Manifest.read(path) for path in sorted(folder.glob("*.json"))]
    retry = attrs.evolve(POLL, timeout=wait)
    graph = {each.name: work.job(apply, each, state, takes, after=each.after, retry=retry) for each in manifests}
    report = trio.run(work.Jobs(graph, limit=limit, on_error="continue").execute)
    print(report.render())
    for front in report.frontier():
        blamed = [name for name, job in report.items() if job.blame is report[front.name]]
        because = f"; because of it skipped: {', '.join(blamed)}" if blamed else ""
        print(f"stuck at {front.name} ({front.status.value}){because}")
    return 0 if report.ok else 1


@attrs.define(eq=False)
class Reconciler:
    """Looks at the manifests again and again, and starts a job in the pool for each that is not applied as it is."""

    folder: Path
    state: Path
    takes: float
    pool: work.Pool
    manifests: dict[str, Manifest] = attrs.field(factory=dict[str, Manifest], init=False)
    jobs: dict[str, work.Job[None]] = attrs.field(factory=dict[str, work.Job[None]], init=False)
    """The last job of each manifest."""
    applied_at: float = attrs.field(default=0, init=False)
    """When the last was applied."""
    _claims: dict[str, work.Job[None]] = attrs.field(factory=dict[str, work.Job[None]], init=False)
    _seen: dict[Path, Stamp] = attrs.field(factory=dict[Path, Stamp], init=False)
    _stale: set[str] = attrs.field(factory=set[str], init=False)
    _told: dict[str, str] = attrs.field(factory=dict[str, str], init=False)

    async def look(self) -> None:
        await self._read_changes()
        for name, job in self.jobs.items():
            if job.ended is not None and not job.ready:
                self._tell(name, f"{job.state}: {f'because of {job.blame.name}' if job.blame else job.error}")
                if job.ended <= self.applied_at:  # what was in its way may be done
                    self._stale.add(name)
        try:
            after = {name: manifest.after for name, manifest in self.manifests.items()}
            order = [*(self._stale - after.keys()), *graphlib.TopologicalSorter(after).static_order()]
        except graphlib.CycleError as error:
            self._tell("all", f"nothing is applied while these are after each other: {', '.join(error.args[1])}")
            return
        for name in order:
            if name in self._stale:
                befores = [self.jobs[before] for before in after.get(name, ()) if before in self.jobs]
                self._start(name, [job for job in befores if not job.ready])
        self._stale.clear()

    def _start(self, name: str, after: list[work.Job[None]]) -> None:
        if name in self._claims:
            self._claims.pop(name).cancel()  # else this one would come after it, which may wait for its disk for ever
        is_claim = name in self.manifests and self.manifests[name].kind == "Claim"
        job = self.pool.start(self._reconcile, name, name=name, key=name, after=after, retry=POLL if is_claim else None)
        self.jobs[name] = job
        if is_claim:
            self._claims[name] = job

    async def _read_changes(self) -> None:
        """Take in what is new, changed or gone."""
        found = await trio.to_thread.run_sync(stamps, self.folder)
        for path in self._seen.keys() - found.keys():
            if self.manifests.pop(path.stem, None):
                self._stale.add(path.stem)
        for path in [path for path, stamp in found.items() if self._seen.get(path) != stamp]:
            try:
                self.manifests[path.stem] = await trio.to_thread.run_sync(Manifest.read, path)
            except (ManifestError, FileNotFoundError) as error:  # it may be half written, and stays as it was
                self._tell(path.stem, str(error))
            else:
                self._stale.add(path.stem)
                log.info("%s has changed" if path in self._seen else "%s is new", path.stem)
        self._seen = found

    async def _reconcile(self, name: str) -> None:
        """Have the target be as the manifest is now, however it was when the job was started."""
        manifest = self.manifests.get(name)
        if manifest is None:
            await remove(name, self.state)
            return
        missing = [before for before in manifest.after if before not in self.manifests]
        work.ready_if(not missing, f"after what is not there: {', '.join(missing)}")
        try:
            await apply(manifest, self.state, self.takes)
        except ManifestError as error:
            raise grouper.NotReady(str(error)) from error  # not a failure of this program, which goes on and will end with 0
        self.applied_at = trio.current_time()
        self._told.pop(name, None)

    async def give_up(self) -> None:
        """Cancel the Claims: the pool ends when all its jobs have, and nobody knows when there will be a disk."""
        for job in self._claims.values():
            job.cancel()

    def _tell(self, name: str, what: str) -> None:
        if self._told.get(name) != what:
            self._told[name] = what
            log.warning("%s: %s", name, what)


def stamps(folder: Path) -> dict[Path, Stamp]:
    """The manifests, each with what changes when it does."""
    found: dict[Path, Stamp] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".json"):
                with contextlib.suppress(FileNotFoundError):
                    stat = entry.stat()
                    found[Path(entry)] = stat.st_mtime_ns, stat.st_size, stat.st_ino
    return found


def generate(folder: Path, number: int, broken: int) -> None:
    """Write so many manifests, in stacks of six. A claim is not after its volume: it waits for the disk that this makes."""
    for place in range(number):
        n = place // 6
        stack: list[tuple[str, list[str], dict[str, str]]] = [
            ("namespace", [], {}),
            ("config", [f"namespace-{n}"], {"text": f"number = {n}"}),
            ("volume", [f"config-{n}"], {"disk": f"disk-{n}"}),
            ("claim", [f"namespace-{n}"], {"disk": f"disk-{n}"}),
            ("app", [f"claim-{n}", f"config-{n}"], {} if n < broken else {"image": "app:1.0"}),
            ("route", [f"app-{n}"], {"path": f"/{n}"}),
        ]
        kind, after, spec = stack[place % 6]
        write(folder / f"{kind}-{n}.json", {"kind": kind.title(), "after": after, **spec})


def main() -> int:
    parser = argparse.ArgumentParser(description="Make a folder what a folder of manifests says.")
    commands = parser.add_subparsers(dest="command", required=True)
    generating = commands.add_parser("generate", help="write manifests for a try")
    generating.add_argument("folder", type=Path)
    generating.add_argument("--number", type=int, default=300, help="(default: %(default)s)")
    generating.add_argument("--broken", type=int, default=0, metavar="NUMBER", help="apps without an image (default: %(default)s)")
    applying = commands.add_parser("apply", help="apply manifests, and then whatever changes")
    applying.add_argument("folder", type=Path)
    applying.add_argument("state", type=Path, help="the folder to apply them to; it is made if it is not there")
    applying.add_argument("--once", action="store_true", help="do not wait for changes; status 1 unless all could be applied")
    applying.add_argument("--limit", type=int, default=8, help="how many to apply at a time (default: %(default)s)")
    for name, default, what in [
        ("--every", 0.5, "how often to look for changes"),
        ("--wait", 10.0, "how long a Claim waits for its disk, with --once"),
        ("--takes", 0.01, "how slow it is to apply one"),
    ]:
        applying.add_argument(name, type=float, default=default, metavar="SECONDS", help=f"{what} (default: %(default)s)")
    options = parser.parse_args()
    if options.command == "generate":
        generate(options.folder, options.number, options.broken)
        return 0
    if not options.folder.is_dir():
        parser.error(f"{options.folder} is not a directory: {parser.prog} generate {options.folder} makes one")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    if options.once:
        try:
            return apply_once(options.folder, options.state, options.takes, options.limit, options.wait)
        except (ManifestError, grouper.GraphError) as error:
            parser.error(f"nothing was applied: {error}")
    pool = work.Pool(limit=options.limit)
    reconciler = Reconciler(options.folder, options.state, options.takes, pool)
    return grouper.run(
        grouper.Ordered(
            [
                grouper.Member("pool", pool, grace=60),
                ("give up", grouper.Cleanup(reconciler.give_up)),
                ("watcher", grouper.Periodic(reconciler.look, every=options.every)),
            ]
        )
    )


if __name__ == "__main__":
    sys.exit(main())
