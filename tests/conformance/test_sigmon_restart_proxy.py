"""What the wrappers promise: Sigmon, Restarter and Proxy (sections 1.9 to 1.11 of the contract)."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from grouper import Proxy, Restarter, Sigmon, Signals, State, restart_on
from grouper.runner import RunnerLike

from .runners import Stage, ended, watched


async def until(log: list[str], *lines: str) -> None:
    """Wait, in real time, until the log has these lines."""
    with trio.fail_after(30):
        while log != list(lines):  # noqa: ASYNC110 (a log tells nobody that it has grown)
            await trio.sleep(0.001)


@pytest.mark.real_time
@pytest.mark.contract("63")
async def test_63_sigmon_relays_the_operating_systems_signals() -> None:
    """The runner gets SIGINT, SIGTERM, the signals that were named and those sent to its process, also before it is ready."""
    stage = Stage("a")
    async with watched(Sigmon(stage["a"], signal.SIGUSR1), seconds=20) as process:
        await until(stage.log, "a starts")
        assert process.state is State.STARTING
        lines = ["a starts"]
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.raise_signal(number)
            lines.append(f"a {number.name}")
            await until(stage.log, *lines)
        process.signal(signal.SIGHUP)
        await until(stage.log, *lines, "a SIGHUP")
        stage["a"].exit()
        await process.wait()


@pytest.mark.real_time
@pytest.mark.contract("63")
async def test_63_sigmon_is_ready_and_ends_as_its_runner() -> None:
    """It is ready, with the same value, when the runner is, and raises what the runner raises."""
    stage = Stage("a")
    error = ValueError("broken")
    async with watched(Sigmon(stage["a"]), seconds=20) as process:
        await until(stage.log, "a starts")
        assert process.state is State.STARTING
        stage["a"].make_ready("value")
        assert await process.wait_ready() == "value"
        stage["a"].exit(error)
        assert (await process.wait()).error is error


@pytest.mark.real_time
@pytest.mark.contract("63")
async def test_63_sigmon_gives_the_signals_back() -> None:
    """While it runs it owns the signals; when its runner has exited their handlers are what they were."""
    stage = Stage("a", ready=True)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    async with watched(Sigmon(stage["a"], signal.SIGUSR1), seconds=20) as process:
        await process.wait_ready()
        assert not {*map(id, before)} & {id(signal.getsignal(number)) for number in numbers}
        stage["a"].exit()
        await process.wait()
        assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.contract("64")
async def test_64_load_says_what_runs_next() -> None:
    """After each exit `load` is asked, with the runner and its error; what it returns is run, and None ends it with that error."""
    stage = Stage("abc", ready=True)
    asked: list[tuple[RunnerLike, Exception | None]] = []
    following = iter([stage["b"], stage["c"], None])

    async def load(runner: RunnerLike, error: Exception | None) -> RunnerLike | None:
        asked.append((runner, error))
        return next(following)

    first, last = ValueError("first"), ValueError("last")
    async with watched(Restarter(stage["a"], load)) as process:
        await stage.set_out()
        stage["a"].exit(first)
        assert await stage.news() == ["a exits", "b starts"]
        stage["b"].exit()
        assert await stage.news() == ["b exits", "c starts"]
        stage["c"].exit(last)
        assert (await ended(process)).error is last
    assert asked == [(stage["a"], first), (stage["b"], None), (stage["c"], last)]


@pytest.mark.contract("65")
def test_65_a_restarter_without_load_is_refused() -> None:
    """A Restarter that has no callback cannot be made."""
    nothing: Any = None
    with pytest.raises(TypeError, match="load"):
        Restarter(Stage("a")["a"], nothing)


@pytest.mark.contract("66")
async def test_66_a_restarter_is_ready_with_the_first_of_its_runs_that_is() -> None:
    """It is ready when the runner of the moment first is, be it the first one or a later one."""
    stage = Stage("a")
    async with watched(restart_on(stage["a"], ValueError)) as process:
        await stage.set_out()
        stage["a"].exit(ValueError("too early"))
        await trio.sleep(10)
        assert stage["a"].runs == 2
        assert process.state is State.STARTING
        stage["a"].make_ready("second")
        assert await process.wait_ready() == "second"
        stage["a"].exit()


@pytest.mark.contract("67")
async def test_67_a_stop_signal_goes_to_the_current_run_and_is_the_last_of_it() -> None:
    """The runner that runs at the time gets the signal; nothing is run after it, and its error is the result."""
    stage = Stage("a", ready=True)
    error = ValueError("broken at the end")
    async with watched(restart_on(stage["a"], ValueError)) as process:
        await stage.set_out()
        stage["a"].exit(ValueError("broken"))
        await trio.sleep(10)
        assert await stage.news() == ["a exits", "a starts"]
        process.signal(signal.SIGTERM)
        assert await stage.news() == ["a SIGTERM"]
        stage["a"].exit(error)
        assert (await ended(process)).error is error
        assert stage["a"].runs == 2


@pytest.mark.contract("67")
async def test_67_a_pass_through_signal_does_not_end_the_restarts() -> None:
    """After a signal that stops nothing, a failed runner is run again as before."""
    stage = Stage("a", ready=True)
    async with watched(restart_on(stage["a"], ValueError)) as process:
        await stage.set_out()
        process.signal(signal.SIGHUP)
        assert await stage.news() == ["a SIGHUP"]
        stage["a"].exit(ValueError("broken"))
        await trio.sleep(10)
        assert await stage.news() == ["a exits", "a starts"]
        stage["a"].exit()


@pytest.mark.contract("68")
@pytest.mark.parametrize(
    ("error", "runs"),
    [(ValueError("named"), 2), (UnicodeError("a subclass"), 2), (OSError("named second"), 2), (KeyError("other"), 1), (None, 1)],
    ids=["named", "a subclass", "named second", "other", "clean"],
)
async def test_68_restart_on_runs_again_after_the_errors_it_names(error: Exception | None, runs: int) -> None:
    """The same runner is run again if its error is of one of the classes; any other end is the Restarter's."""
    stage = Stage("a", ready=True)
    async with watched(restart_on(stage["a"], ValueError, OSError)) as process:
        await stage.set_out()
        stage["a"].exit(error)
        await trio.sleep(10)
        assert stage["a"].runs == runs
        assert (process.exit is None) is (runs == 2)
        if runs == 2:
            stage["a"].exit()


@pytest.mark.contract("69")
async def test_69_a_proxied_runner_hears_both_sources_in_order() -> None:
    """The runner gets what is sent to the extra `Signals` and to its process, in the order in which they were sent."""
    stage = Stage("a", ready=True)
    extra = Signals()
    extra.send(signal.SIGUSR2)
    async with watched(Proxy(extra, stage["a"])) as process:
        assert await stage.news() == ["a starts", "a SIGUSR2"]
        process.signal(signal.SIGHUP)
        extra.send(signal.SIGUSR1)
        process.signal(signal.SIGTERM)
        extra.send(signal.SIGINT)
        assert await stage.news() == ["a SIGHUP", "a SIGUSR1", "a SIGTERM", "a SIGINT"]
        stage["a"].exit()


@pytest.mark.contract("69")
async def test_69_a_proxy_is_ready_when_its_runner_is() -> None:
    """Its ready, and its value, are the runner's."""
    stage = Stage("a")
    async with watched(Proxy(Signals(), stage["a"])) as process:
        await wait_all_tasks_blocked()
        assert process.state is State.STARTING
        stage["a"].make_ready("value")
        assert await process.wait_ready() == "value"
        stage["a"].exit()
