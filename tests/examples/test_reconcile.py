"""A folder that is kept as a folder of manifests says: graphs run once, and a pool that is given what changes."""

from __future__ import annotations

import contextlib
import importlib
import json
import signal
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from grouper.work import Job, Pool, open_pool

from .program import Program, started

pytestmark = pytest.mark.real_time

ONCE = ("--once", "--takes", 0)
SOON = ("--every", 0.02, "--takes", 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "manifests"
    path.mkdir()
    return path


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def write(folder: Path, name: str, kind: str = "Config", *after: str, **spec: object) -> None:
    """Write a manifest as a whole, as a checkout does: no half of it is ever seen."""
    new = folder / f"{name}.new"
    new.write_text(json.dumps({"kind": kind, "after": after, **spec}))
    new.replace(folder / f"{name}.json")


def applied(state: Path, name: str) -> dict[str, Any] | None:
    """What a manifest was last applied as."""
    with contextlib.suppress(FileNotFoundError):
        found: dict[str, Any] = json.loads((state / f"{name}.json").read_text())
        return found
    return None


def contents(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 (what another process does sets no event)
        await trio.sleep(0.01)


async def generate(folder: Path, *options: object) -> dict[str, dict[str, Any]]:
    """What the program itself writes for a try, by name."""
    async with started("reconcile.py", "generate", folder, *options) as program:
        assert await program.end() == 0
    return contents(folder)


@contextlib.asynccontextmanager
async def watching(folder: Path, state: Path, *options: object) -> AsyncGenerator[Program]:
    """The program that goes on; at the end of the block it is told to stop, which it does, with 0."""
    async with started("reconcile.py", "apply", folder, state, *(options or SOON)) as program:
        await program.line("the root is ready")
        yield program
        program.signal(signal.SIGTERM)
        assert await program.end() == 0
    assert program.told("member '(.*)' exited") == ["watcher", "give up", "pool"]


# Once


async def test_hundreds_are_applied_in_order(folder: Path, state: Path) -> None:
    """No job begins before all that its manifest is after are applied; status 0."""
    manifests = await generate(folder, "--number", 300)
    assert len(manifests) == 300
    async with started("reconcile.py", "apply", folder, state, *ONCE) as program:
        assert await program.end() == 0
    lines = {line: place for place, line in reversed(list(enumerate(program.lines)))}  # of equal lines the first
    for name, manifest in manifests.items():
        assert applied(state, name) == {key: value for key, value in manifest.items() if key != "after"}
        for before in manifest["after"]:
            assert lines[f"applied {before}"] < lines[f"applying {name}"]
    assert program.lines[-1] == "300 jobs: 300 success"


async def test_a_claim_is_asked_again_until_its_disk_is_there(folder: Path, state: Path) -> None:
    """It is after no one who makes the disk; here it is made by hand, once the program has not found it."""
    write(folder, "claim", "Claim", disk="one")
    write(folder, "app", "App", "claim", image="app")
    async with started("reconcile.py", "apply", folder, state, *ONCE, "--wait", 60) as program:
        await program.line("job 'claim' is tried again")
        assert applied(state, "claim") is None
        (state / "disks" / "one").mkdir(parents=True)
        assert await program.end() == 0
    assert int(program.told(r"^success .* claim .*?(\d+) attempts")[0]) > 1
    assert program.lines[-1] == "2 jobs: 2 success"


async def test_a_claim_whose_disk_never_comes_is_not_ready(folder: Path, state: Path) -> None:
    """What is after it is skipped and blames it, also over others; what is not is applied; status 1."""
    write(folder, "claim", "Claim", disk="one")
    write(folder, "app", "App", "claim", image="app")
    write(folder, "route", "Route", "app")
    write(folder, "other")
    async with started("reconcile.py", "apply", folder, state, *ONCE, "--wait", 0.3) as program:
        assert await program.end() == 1
    assert program.told(r"^skipped .* because of (.*)") == ["claim", "claim"]
    assert program.told(r"^not ready .* claim .*(there is no such file)") == ["there is no such file"]
    assert program.told("^stuck at (.*)") == ["claim (not ready); because of it skipped: app, route"]
    assert (applied(state, "app"), applied(state, "other")) == (None, {"kind": "Config"})


async def test_what_fails_is_blamed(folder: Path, state: Path) -> None:
    """Those after it are skipped because of it, all others are applied; status 1."""
    manifests = await generate(folder, "--number", 24, "--broken", 2)
    async with started("reconcile.py", "apply", folder, state, *ONCE) as program:
        assert await program.end() == 1
    assert program.told("^stuck at (.*)") == [
        "app-0 (failed); because of it skipped: route-0",
        "app-1 (failed); because of it skipped: route-1",
    ]
    assert program.told("^failed .* (app-.) .* ManifestError: an App has an image") == ["app-0", "app-1"]
    assert {name for name in manifests if applied(state, name) is None} == {"app-0", "app-1", "route-0", "route-1"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"kind": "Route", "aft', "wrong.json is not JSON"),
        ('{"kind": "Route"}', "wrong.json: a manifest is "),
        ('{"kind": "Route", "after": ["wrong"]}', "wrong"),
        ('{"kind": "Route", "after": ["nothing"]}', "nothing"),
    ],
)
async def test_what_is_no_graph_is_refused(content: str, told: str, folder: Path, state: Path) -> None:
    """Before anything is applied; status 2."""
    write(folder, "fine")
    (folder / "wrong.json").write_text(content)
    async with started("reconcile.py", "apply", folder, state, *ONCE) as program:
        assert await program.end() == 2
    assert told in program.lines[-1]
    assert contents(state) == {}


async def test_a_folder_that_is_not_there_is_refused(folder: Path, state: Path) -> None:
    """And it is told how to make one."""
    async with started("reconcile.py", "apply", folder / "nothing", state) as program:
        assert await program.end() == 2
    assert "is not a directory" in program.lines[-1]


# For as long as it runs


async def test_what_changes_is_applied_again(folder: Path, state: Path) -> None:
    """Also what is new, and what is gone is removed; what has not changed is applied once."""
    write(folder, "config", text="one")
    write(folder, "other")
    async with watching(folder, state) as program:
        await until(lambda: applied(state, "config") and applied(state, "other"))
        write(folder, "config", text="two")
        await until(lambda: applied(state, "config") == {"kind": "Config", "text": "two"})
        write(folder, "new", "Route", "config")
        await until(lambda: applied(state, "new"))
        (folder / "new.json").unlink()
        await until(lambda: applied(state, "new") is None)
    assert sorted(program.told("^applied (.*)")) == ["config", "config", "new", "other"]


async def test_what_was_skipped_is_applied_when_what_it_blames_is_mended(folder: Path, state: Path) -> None:
    """And so is what was after something that was not there. What failed meanwhile does not fail the program."""
    write(folder, "app", "App")
    write(folder, "route", "Route", "app")
    write(folder, "page", "Page", "route")
    write(folder, "late", "Route", "later")
    async with watching(folder, state) as program:
        await program.line("app: not ready: an App has an image")
        await program.line("route: skipped: because of app")
        await program.line("page: skipped: because of app")
        await program.line("late: not ready: after what is not there: later")
        write(folder, "app", "App", image="app")
        await until(lambda: applied(state, "page"))
        write(folder, "later")
        await until(lambda: applied(state, "late"))
    assert program.told("^applied (.*)") == ["app", "route", "page", "later", "late"]


async def test_manifests_that_are_after_each_other_wait_for_a_change(folder: Path, state: Path) -> None:
    """They are named, and applied when one of them is no more after the other."""
    write(folder, "one", "Config", "two")
    write(folder, "two", "Config", "one")
    async with watching(folder, state) as program:
        await program.line("nothing is applied while these are after each other: (one, two, one|two, one, two)")
        write(folder, "one")
        await until(lambda: applied(state, "two"))
    assert program.told("^applied (.*)") == ["one", "two"]


async def test_a_half_written_manifest_changes_nothing(folder: Path, state: Path) -> None:
    """It is told, and taken when it is whole."""
    write(folder, "config", text="one")
    async with watching(folder, state) as program:
        await until(lambda: applied(state, "config"))
        (folder / "config.json").write_text('{"kind": "Config", "after": [], "te')
        await program.line("config: config.json is not JSON")
        write(folder, "config", text="two")
        await until(lambda: applied(state, "config") == {"kind": "Config", "text": "two"})
    assert program.told("^applied (.*)") == ["config", "config"]


async def test_sigterm_finishes_what_is_under_way(folder: Path, state: Path) -> None:
    """And gives up a claim that would be polled for ever, with what is after it; status 0."""
    write(folder, "claim", "Claim", disk="never")
    write(folder, "app", "App", "claim", image="app")
    write(folder, "slow")
    async with watching(folder, state, "--every", 0.02, "--takes", 0.5) as program:
        await program.line("job 'claim' is tried again")
        await program.line("applying slow")
    assert program.told("^applied (.*)") == ["slow"]
    assert applied(state, "slow") == {"kind": "Config"}


async def test_a_claim_that_was_changed_together_with_what_it_is_after_is_given_up(folder: Path, state: Path) -> None:
    """Nothing is left of the job that polled before the change, which would keep the pool from ending; status 0."""
    write(folder, "config", text="one")
    write(folder, "claim", "Claim", "config", disk="never")
    async with watching(folder, state, "--every", 0.02, "--takes", 0.3) as program:
        await program.line("job 'claim' is tried again")
        write(folder, "config", text="two")
        write(folder, "claim", "Claim", "config", disk="neither")
        await program.line("claim has changed")
    assert applied(state, "config") == {"kind": "Config", "text": "two"}


async def test_a_claim_that_changes_while_it_is_polled_is_applied_as_it_is_then(folder: Path, state: Path) -> None:
    """What waits for the old one is not lost."""
    write(folder, "config")
    write(folder, "claim", "Claim", "config", disk="never")
    write(folder, "app", "App", "claim", image="app")
    async with watching(folder, state) as program:
        await program.line("job 'claim' is tried again")
        write(folder, "volume", "Volume", disk="now")
        write(folder, "claim", "Claim", "config", disk="now")
        await until(lambda: applied(state, "app"))
    assert applied(state, "claim") == {"kind": "Claim", "disk": "now"}


async def test_changes_while_it_is_applied_come_to_one_more_run(folder: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the manifest is after the last of them, and not at the same time as the first."""
    reconcile = importlib.import_module("examples.reconcile")
    gate, begun, real = trio.Event(), list[str](), reconcile.apply

    async def apply(manifest: Any, state: Path, takes: float) -> None:
        if manifest.name == "config":
            begun.append(manifest.spec["text"])
            await gate.wait()
        await real(manifest, state, takes)

    monkeypatch.setattr(reconcile, "apply", apply)
    write(folder, "base")
    pool: Pool
    async with open_pool() as pool:
        reconciler = reconcile.Reconciler(folder, state, 0, pool)
        await reconciler.look()
        await pool.drained()
        write(folder, "config", "Config", "base", text="0")
        jobs: set[Job[None]] = set()
        for text in "12345":
            await reconciler.look()
            await wait_all_tasks_blocked()
            jobs.add(reconciler.jobs["config"])
            write(folder, "config", "Config", "base", text=text)
        await reconciler.look()
        await wait_all_tasks_blocked()
        assert (begun, len(jobs), len(pool.running), pool.active) == (["0"], 2, 1, 2)
        gate.set()
    assert begun == ["0", "5"]
    assert applied(state, "config") == {"kind": "Config", "text": "5"}
