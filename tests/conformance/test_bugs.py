"""Where ifrit is wrong, and what grouper does instead (section 2 of the contract)."""

from __future__ import annotations

import math
import signal
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import grouper
from grouper import (
    DuplicateNames,
    Dynamic,
    EntranceEvent,
    ErrorTrace,
    ExitedBeforeReady,
    GroupClosed,
    HTTPServer,
    MemberKilled,
    Ordered,
    Parallel,
    Process,
    Proxy,
    QueueOrdered,
    Restarter,
    Role,
    Signals,
    StartEvent,
    State,
    StopTimeout,
    TCPServer,
    restart_on,
)
from grouper.runner import RunnerLike

from .runners import Actor, Stage, ended, names, trace_of, watched

STATIC = [Ordered, QueueOrdered, Parallel]


@pytest.mark.contract("B1")
@pytest.mark.parametrize("kind", STATIC)
async def test_b01_none_leaves_the_others_alone(kind: Any) -> None:
    """With `termination_signal=None` an exit sends nothing to anybody; the group ends with the last member and raises then."""
    stage = Stage("ab", ready=True)
    inner = Stage("c", ready=True)
    async with watched(kind([*stage.members(), ("inner", Ordered(inner.members()))], termination_signal=None)) as process:
        await stage.set_out()
        stage["a"].exit(ValueError("broken"))
        assert await stage.news() == ["a exits"]
        stage["b"].exit()
        await stage.news()
        assert process.exit is None
        inner["c"].exit()
        assert [str(error) for error in trace_of(await ended(process)).exceptions] == ["broken"]
    assert stage["b"].heard == inner["c"].heard == []


@pytest.mark.contract("B1")
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL, 0, "SIGTERM"])
def test_b01_a_termination_signal_stops_members_or_is_refused(number: Any) -> None:
    """A termination signal that does not stop a member cannot be given."""
    with pytest.raises(ValueError, match="termination_signal"):
        Parallel([], termination_signal=number)


@pytest.mark.contract("B2")
async def test_b02_a_further_signal_is_no_exit() -> None:
    """However many signals come while a group stops, it waits for each member, and no error is lost."""
    stage = Stage("ab", ready=True)
    stage["a"].polite = True
    async with watched(Parallel(stage.members(grace=math.inf))) as process:
        await stage.set_out()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            process.signal(number)
            await stage.news()
        assert process.exit is None
        stage["b"].exit(ValueError("late"))
        assert [str(error) for error in trace_of(await ended(process)).exceptions] == ["late"]


@pytest.mark.contract("B3")
@pytest.mark.parametrize("kind", [*STATIC, Dynamic])
async def test_b03_no_signal_is_lost_while_a_group_stops(kind: Any) -> None:
    """In all groups alike, the member being stopped gets every further stop signal, in order."""
    stage = Stage("a", ready=True)
    sent = [signal.SIGTERM, signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT]
    group = kind() if kind is Dynamic else kind(stage.members())
    async with watched(group) as process:
        await process.wait_ready()
        if isinstance(group, Dynamic):
            await group.client().insert(("a", stage["a"]))
        for number in sent:
            process.signal(number)
            await stage.news()
        stage["a"].exit()
    assert stage["a"].heard == sent


@pytest.mark.contract("B4")
async def test_b04_signals_sent_back_to_back_keep_their_order() -> None:
    """A signal never overtakes another, through however many groups they go."""
    stage = Stage("a", ready=True)
    async with watched(Ordered([("group", Parallel([("group", QueueOrdered(stage.members()))]))])) as process:
        sent: list[int] = []
        for number in [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2] * 100:
            process.signal(number)
            sent.append(number)
            if len(sent) % 2 == 0:
                await wait_all_tasks_blocked()
        process.signal(signal.SIGHUP)
        process.signal(signal.SIGTERM)
        await wait_all_tasks_blocked()
        assert stage["a"].heard == [*sent, signal.SIGHUP, signal.SIGTERM]
        stage["a"].exit()


@pytest.mark.contract("B5")
@pytest.mark.parametrize("kind", STATIC)
async def test_b05_a_benign_signal_changes_nothing(kind: Any) -> None:
    """A signal that stops nothing reaches every member, and the group goes on supervising."""
    stage = Stage("abc", ready=True, polite=True)
    async with watched(kind(stage.members())) as process:
        await stage.set_out()
        process.signal(signal.SIGHUP)
        assert sorted(await stage.news()) == ["a SIGHUP", "b SIGHUP", "c SIGHUP"]
        assert process.state is State.READY
        stage["b"].exit(ValueError("broken"))
        assert [str(error) for error in trace_of(await ended(process)).exceptions] == ["broken"]


@pytest.mark.contract("B6")
@pytest.mark.parametrize("exit_first", [False, True])
async def test_b06_no_member_comes_in_after_the_stop_signal(exit_first: bool) -> None:
    """An insert that waits for room when the stop signal comes is refused, or its member is stopped: the group ends."""
    stage = Stage("ab", ready=True, polite=True)
    group = Dynamic(1)
    client = group.client()
    refused: list[str] = []

    async def insert(name: str) -> None:
        try:
            await client.insert((name, stage[name]))
        except GroupClosed:
            refused.append(name)

    async with watched(group) as process, trio.open_nursery() as nursery:
        await insert("a")
        nursery.start_soon(insert, "b")
        await stage.news()
        if exit_first:
            stage["a"].exit()
        process.signal(signal.SIGTERM)
        assert (await ended(process)).ok
    assert stage["b"].runs + len(refused) == 1
    assert len(stage["b"].heard) == stage["b"].runs


@pytest.mark.contract("B6")
async def test_b06_a_producer_that_inserts_all_the_time_does_not_keep_the_group_up() -> None:
    """Whenever the stop signal comes among inserts, the group ends, and whoever was let in was told to stop."""
    for pause in range(20):
        stage = Stage()
        group = Dynamic(2)
        client = group.client()

        async def produce(who: str, stage: Stage = stage, client: grouper.Client = client) -> None:
            for number in range(1, 500):
                actor = stage.add(f"{who}{number}", ready=True, polite=True)
                try:
                    await client.insert((actor.name, actor))
                except GroupClosed:
                    return
                if number % 2:
                    await trio.lowlevel.checkpoint()
                    actor.exit()

        async with watched(group) as process, trio.open_nursery() as nursery:
            nursery.start_soon(produce, "a")
            nursery.start_soon(produce, "b")
            for _ in range(pause):
                await trio.lowlevel.checkpoint()
            process.signal(signal.SIGTERM)
            assert (await process.wait()).ok


@pytest.mark.contract("B7")
async def test_b07_a_listener_that_does_not_read_holds_nobody_up() -> None:
    """The group goes on while a listener reads nothing; what the listener has not read is there when it does."""
    stage = Stage()
    group = Dynamic(event_buffer=1)
    client = group.client()
    async with watched(group) as process, client.exits() as lazy:
        for number in range(300):
            actor = stage.add(f"m{number}", ready=True, polite=True)
            await client.insert((actor.name, actor))
        await stage.news()
        process.signal(signal.SIGTERM)
        assert (await ended(process)).ok
        assert {event.path async for event in lazy} == {actor.name for actor in stage}
        assert lazy.missed == 0


@pytest.mark.contract("B7")
async def test_b07_the_replay_takes_no_room_from_what_comes() -> None:
    """A late listener that has not read its replay yet is told all that happens afterwards as well."""
    stage = Stage("abcde", ready=True)
    group = Dynamic(event_buffer=2)
    client = group.client()

    async def come_and_go(name: str) -> None:
        await client.insert((name, stage[name]))
        await stage.news()
        stage[name].exit()
        await stage.news()

    async with watched(group):
        for name in "ab":
            await come_and_go(name)
        async with client.exits() as late:
            for name in "cde":
                await come_and_go(name)
            client.close()
            assert [event.path async for event in late] == list("abcde")


@pytest.mark.contract("B8")
async def test_b08_a_duplicate_name_is_the_inserters_error() -> None:
    """Whoever inserts a name that is running gets DuplicateNames; the group and its members notice nothing."""
    stage = Stage("a", ready=True)
    group = Dynamic()
    client = group.client()
    async with watched(group) as process:
        await client.insert(("a", stage["a"]))
        with pytest.raises(DuplicateNames) as caught:
            await client.insert(("a", stage["a"]))
        assert caught.value.names == ("a",)
        assert await stage.news() == ["a starts"]
        assert process.exit is None
        stage["a"].exit()


@pytest.mark.contract("B9")
async def test_b09_a_dynamic_group_runs_again() -> None:
    """A second run begins open and empty, as the first did."""
    stage = Stage("a", ready=True, polite=True)
    group = Dynamic()
    client = group.client()
    for run in (1, 2):
        async with watched(group) as process:
            await process.wait_ready()
            await client.insert(("a", stage["a"]))
            await stage.news()
            assert stage["a"].runs == run
            client.close()
            stage["a"].exit()
            assert (await ended(process)).ok


@pytest.mark.contract("B9")
async def test_b09_a_second_run_at_the_same_time_is_refused() -> None:
    """The second one raises and disturbs nobody."""
    stage = Stage("a", ready=True, polite=True)
    group = Dynamic()
    async with watched(group) as process:
        await process.wait_ready()
        with pytest.raises(RuntimeError, match="running already"):
            async with grouper.invoke(group):
                pytest.fail("it was ready")
        await group.client().insert(("a", stage["a"]))
        assert await stage.news() == ["a starts"]
        assert process.exit is None


@pytest.mark.contract("B10")
@pytest.mark.parametrize("kind", STATIC)
async def test_b10_a_group_can_be_run_again(kind: Any) -> None:
    """Nothing of a run stays on the group: under a restarter each run starts all members and tells its own failures."""
    stage = Stage("ab", ready=True, polite=True)
    failures: list[str] = []

    async def load(runner: RunnerLike, error: Exception | None) -> RunnerLike:
        assert isinstance(error, ErrorTrace)
        failures.extend(map(str, error.exceptions))
        return runner

    async with watched(Restarter(kind(stage.members()), load)):
        for run in (1, 2, 3):
            await stage.set_out()
            assert [actor.runs for actor in stage] == [run, run]
            stage["a"].exit(ValueError(f"run {run}"))
        await stage.set_out()
        assert failures == ["run 1", "run 2", "run 3"]


@pytest.mark.contract("B11")
async def test_b11_a_failure_in_a_dynamic_group_is_not_swallowed() -> None:
    """A dynamic group in which a member failed raises a trace with that failure when it ends."""
    stage = Stage("a", ready=True)
    group = Dynamic()
    async with watched(group) as process:
        await group.client().insert(("a", stage["a"]))
        await stage.news()
        stage["a"].exit(ValueError("broken"))
        await stage.news()
        process.signal(signal.SIGTERM)
        assert [str(error) for error in trace_of(await ended(process)).exceptions] == ["broken"]


@pytest.mark.real_time
@pytest.mark.contract("B12")
@pytest.mark.parametrize("is_ready", [False, True])
def test_b12_a_program_whose_server_returned_unready_has_failed(is_ready: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit status is 1 where a service returned before it was ready, and 0 where it returned after."""

    async def server(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        if is_ready:
            task_status.started()
            await trio.sleep(0.05)

    assert grouper.run(Ordered([("server", server)])) == (0 if is_ready else 1)
    assert ("'server' returned before it was ready" in capsys.readouterr().err) is not is_ready


@pytest.mark.contract("B12")
async def test_b12_what_is_meant_to_return_says_so_with_its_role() -> None:
    """A job that returns without having said that it was ready is satisfied, and the group goes on."""
    stage = Stage("ab", ready=True, polite=True)
    stage["a"].ready = False
    members = [grouper.Member("a", stage["a"], role=Role.JOB), grouper.Member("b", stage["b"])]
    async with watched(Ordered(members)) as process:
        assert await stage.news() == ["a starts"]
        stage["a"].exit()
        assert await stage.news() == ["a exits", "b starts"]
        assert process.state is State.READY


@pytest.mark.contract("B13")
async def test_b13_an_exit_beats_a_ready_of_the_same_moment() -> None:
    """A member that says that it is ready and fails at once never lets the next one start, however tasks are scheduled."""

    async def dies(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        raise ValueError("broken")

    for _ in range(50):
        following = Actor("b", [], polite=True)
        async with watched(Ordered([("a", dies), ("b", following)])) as process:
            exit = await process.wait()
        assert not exit.was_ready
        assert following.runs == 0
        assert [each.was_ready for each in trace_of(exit).exits] == [True]


@pytest.mark.contract("B13")
async def test_b13_a_start_that_died_is_told_to_whoever_waits_for_it() -> None:
    """`invoke` of a group whose member was ready and died at once raises; it does not begin its block."""

    async def dies(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        raise ValueError("broken")

    for _ in range(50):
        with pytest.raises(ErrorTrace):
            async with grouper.invoke(Parallel([("a", dies)])):
                pytest.fail("the block began")


@pytest.mark.contract("B14")
async def test_b14_a_restarter_whose_first_run_failed_early_is_ready_with_the_second() -> None:
    """Ready is that of the runner of the moment, until one was ready; later ones change nothing."""
    stage = Stage("a")
    async with watched(restart_on(stage["a"], ValueError)) as process:
        for _ in range(2):
            await stage.set_out()
            assert process.state is State.STARTING
            stage["a"].exit(ValueError("too early"))
            await trio.sleep(10)
        stage["a"].make_ready("third")
        await stage.set_out()
        assert process.state is State.READY
        stage["a"].exit(ValueError("later"))
        await trio.sleep(10)
        stage["a"].make_ready("fourth")
        await stage.set_out()
        assert (process.value, stage["a"].runs) == ("third", 4)
        stage["a"].exit()


@pytest.mark.contract("B15")
async def test_b15_a_stop_signal_ends_the_backoff_and_nothing_runs_after_it() -> None:
    """While `load` sleeps, a stop signal cancels it: the restarter ends at once, with the last error, and starts nobody."""
    stage = Stage("a", ready=True)
    error = ValueError("broken")
    async with watched(restart_on(stage["a"], ValueError, delay=600)) as process:
        await stage.set_out()
        stage["a"].exit(error)
        await stage.news()
        asked = trio.current_time()
        process.signal(signal.SIGTERM)
        exit = await process.wait()
        assert exit.error is error
        assert exit.ended_at == asked
        assert stage["a"].runs == 1


@pytest.mark.contract("B15")
async def test_b15_nothing_runs_after_a_stop_signal_whatever_load_says() -> None:
    """A `load` that does not let itself be cancelled and asks for another run after the stop signal does not get it."""
    stage = Stage("a", ready=True)
    error = ValueError("broken")

    async def load(runner: RunnerLike, error: Exception | None) -> RunnerLike:
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
        return runner

    async with watched(Restarter(stage["a"], load)) as process:
        await stage.set_out()
        stage["a"].exit(error)
        await stage.news()
        process.signal(signal.SIGTERM)
        assert (await process.wait()).error is error
        assert stage["a"].runs == 1


@pytest.mark.contract("B15")
async def test_b15_restarts_are_delayed() -> None:
    """A runner that fails at once is not run again in the same moment."""
    stage = Stage("a", ready=True)
    async with watched(restart_on(stage["a"], ValueError, delay=5)):
        await stage.set_out()
        stage["a"].exit(ValueError("broken"))
        await trio.sleep(4)
        assert stage["a"].runs == 1
        await trio.sleep(2)
        assert stage["a"].runs == 2
        stage["a"].exit()


@pytest.mark.contract("B15")
async def test_b15_an_error_inside_a_trace_counts() -> None:
    """A group is restarted for an error of one of its members, which is inside its trace."""
    stage = Stage("a", ready=True)
    async with watched(restart_on(Ordered([("inner", Parallel(stage.members()))]), ConnectionError)):
        await stage.set_out()
        stage["a"].exit(ConnectionResetError("gone"))
        await trio.sleep(10)
        assert stage["a"].runs == 2
        stage["a"].exit()


@pytest.mark.contract("B16")
async def test_b16_a_proxied_runner_that_fails_to_start_ends_the_proxy() -> None:
    """The proxy does not wait for a ready that cannot come."""
    stage = Stage("a")
    error = ValueError("broken")
    async with watched(Proxy(Signals(), stage["a"])) as process:
        await stage.set_out()
        stage["a"].exit(error)
        assert (await ended(process)).error is error


@pytest.mark.contract("B16")
async def test_b16_a_proxy_forwards_while_its_runner_starts() -> None:
    """Signals of both sources reach a runner that is not ready."""
    stage = Stage("a")
    extra = Signals()
    async with watched(Proxy(extra, stage["a"])) as process:
        await stage.set_out()
        extra.send(signal.SIGUSR1)
        process.signal(signal.SIGTERM)
        assert await stage.news() == ["a SIGUSR1", "a SIGTERM"]
        stage["a"].exit()


@pytest.mark.contract("B17")
@pytest.mark.parametrize("kind", [*STATIC, grouper.Graph])
async def test_b17_every_empty_group_is_ready_at_once(kind: Any) -> None:
    """A group without members is ready, whatever its kind."""
    with trio.fail_after(1):
        async with grouper.invoke(kind([])) as process:
            assert process.state is State.READY


@pytest.mark.contract("B18")
async def test_b18_an_entrance_is_told_only_of_members_that_were_ready() -> None:
    """Started, ready and exited are three facts; a member that was never ready has no entrance, and its exit says so."""
    stage = Stage("ab")
    group = Dynamic()
    client = group.client()
    async with watched(group) as process:
        for member in stage.members():
            await client.insert(member)
        await stage.news()
        stage["b"].make_ready()
        stage["b"].exit()
        stage["a"].exit(ValueError("unready"))
        await stage.news()
        client.close()
        async with client.entrances() as entrances, client.exits() as exits, process.events() as events:
            assert [event.path async for event in entrances] == ["b"]
            assert {event.path: event.exit.was_ready async for event in exits} == {"a": False, "b": True}
            kinds = [(type(event), event.path) async for event in events]
    assert (StartEvent, "a") in kinds
    assert (EntranceEvent, "a") not in kinds


@pytest.mark.contract("B19")
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_b19_the_end_is_recorded_whatever_ended_the_runner(error: type[BaseException]) -> None:
    """Also of a runner that raised what is no Exception those who wait learn how it ended."""
    stage = Stage("a")
    exits: list[grouper.Exit] = []
    unready: list[ExitedBeforeReady] = []

    async def wait(process: Process) -> None:
        exits.append(await process.wait())

    async def wait_ready(process: Process) -> None:
        try:
            await process.wait_ready()
        except ExitedBeforeReady as told:
            unready.append(told)

    async def program() -> None:
        async with grouper.background(Parallel(stage.members())) as process, trio.open_nursery() as nursery:
            await stage.set_out()
            nursery.start_soon(wait, process.children[0])
            nursery.start_soon(wait_ready, process.children[0])
            await stage.news()
            stage["a"].exit(error())

    with trio.fail_after(3600), pytest.raises(error):
        await program()
    assert [type(exit.error) for exit in exits] == [error]
    assert len(unready) == 1


@pytest.mark.contract("B20")
def test_b20_the_message_has_every_duplicate_name_once() -> None:
    """The text names all that are there more than once, each a single time."""
    with pytest.raises(DuplicateNames) as caught:
        Parallel([(name, Actor(name, [])) for name in ("foo", "bar", "foo", "bar", "foo", "none")])
    text = str(caught.value)
    assert [text.count(repr(name)) for name in ("foo", "bar", "none")] == [1, 1, 0]


@pytest.mark.contract("B21")
async def test_b21_a_trace_can_be_searched() -> None:
    """`except*` and `split` find an error at any depth, and parts of a trace are traces with the same exits."""
    stage = Stage("ab", ready=True, polite=True)
    found: list[BaseException] = []
    try:
        async with grouper.invoke(Ordered([("outer", Parallel([("inner", Ordered(stage.members()))]))])):
            await stage.set_out()
            stage["a"].exit(FileNotFoundError("no such file"))
            await trio.sleep(1)
    except* OSError as group:
        found.append(group)
    (part,) = found
    assert isinstance(part, ErrorTrace)
    assert names(part.exits) == ["outer"]


@pytest.mark.contract("B21")
async def test_b21_the_text_of_nested_traces_is_indented() -> None:
    """Each group's failures are beneath it, further in; a chain of groups with a single failure is one path."""
    stage = Stage("ab", ready=True)
    tree = Ordered([("outer", Parallel([("inner", Parallel(stage.members()))]))])
    async with watched(tree) as process:
        await stage.set_out()
        stage["b"].exit(ValueError("first"))
        await stage.news()
        stage["a"].exit(ValueError("second"))
        lines = str(trace_of(await ended(process))).splitlines()
    assert lines[1:] == ["  outer/inner", "    b: ValueError: first  <- first", "    a: ValueError: second"]


@pytest.mark.contract("B22")
async def test_b22_an_ordered_groups_trace_is_in_exit_order() -> None:
    """A member that ended before those that were stopped first comes first in the trace, with its time, and is marked."""
    stage = Stage("abc", ready=True)
    async with watched(Ordered(stage.members())) as process:
        await stage.set_out()
        for name in "bac":
            stage[name].exit(ValueError(name))
            await trio.sleep(1)
        trace = trace_of(await ended(process))
        assert names(trace.exits) == ["b", "a", "c"]
        times = [exit.ended_at for exit in trace.exits]
        assert times == sorted(set(times))
        assert "b: ValueError: b  <- first" in str(trace)


@pytest.mark.contract("B23")
async def test_b23_a_member_that_does_not_stop_is_killed_after_its_grace() -> None:
    """It ends with a StopTimeout that names it, the stop goes on with the next member, and the group ends."""
    stage = Stage("abc", ready=True, polite=True)
    stage["b"].polite = False
    async with watched(Ordered(stage.members(grace=5.0))) as process:
        await stage.set_out()
        process.signal(signal.SIGTERM)
        exit = await process.wait()
        (error,) = trace_of(exit).exceptions
        assert isinstance(error, StopTimeout)
        assert "'b'" in str(error)
    assert stage.log == ["c SIGTERM", "c exits", "b SIGTERM", "b is killed", "a SIGTERM", "a exits"]


@pytest.mark.contract("B23")
async def test_b23_sigkill_ends_what_hangs_at_once() -> None:
    """A SIGKILL to the group kills its members in stop order, one after the other, without their grace."""
    stage = Stage("abc", ready=True)
    async with watched(Ordered(stage.members(grace=math.inf))) as process:
        await stage.set_out()
        process.signal(signal.SIGKILL)
        exit = await ended(process)
        assert exit.killed
        assert isinstance(exit.error, MemberKilled)
    assert stage.log == ["c is killed", "b is killed", "a is killed"]


@pytest.mark.real_time
@pytest.mark.contract("B24")
async def test_b24_a_second_stop_signal_closes_an_http_server_now() -> None:
    """The request under way is cut; the server ends cleanly, and the program goes on."""
    asked = trio.Event()

    async def hang(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        asked.set()
        await trio.sleep_forever()

    async with watched(HTTPServer(hang, "127.0.0.1:0"), seconds=20) as process:
        await process.wait_ready()
        assert not process.value[0].endswith(":0")
        async with await trio.open_tcp_stream("127.0.0.1", int(process.value[0].rpartition(":")[2])) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await asked.wait()
            process.signal(signal.SIGTERM)
            await wait_all_tasks_blocked()
            assert process.exit is None
            process.signal(signal.SIGTERM)
            assert (await process.wait()).ok


@pytest.mark.real_time
@pytest.mark.contract("B24")
async def test_b24_a_second_stop_signal_closes_a_tcp_server_now() -> None:
    """Connections that are open are cut; the server ends cleanly. Its value is where it listens, also with port 0."""
    accepted = trio.Event()

    async def hang(stream: trio.SocketStream) -> None:
        accepted.set()
        await trio.sleep_forever()

    async with watched(TCPServer(hang, 0, host="127.0.0.1"), seconds=20) as process:
        ((host, port),) = await process.wait_ready()
        async with await trio.open_tcp_stream(host, port):
            await accepted.wait()
            process.signal(signal.SIGTERM)
            await wait_all_tasks_blocked()
            assert process.exit is None
            process.signal(signal.SIGINT)
            assert (await process.wait()).ok


@pytest.mark.contract("B27")
async def test_b27_started_twice_is_that_members_error() -> None:
    """The second `started()` raises in the runner, naming it; the member fails, and the others are stopped in order."""
    stage = Stage("a", ready=True, polite=True)

    async def twice(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep(1)
        task_status.started()

    async with watched(Ordered([*stage.members(), ("twice", twice)])) as process:
        (error,) = trace_of(await process.wait()).exceptions
    assert isinstance(error, RuntimeError)
    assert "'twice'" in str(error)
    assert stage.log == ["a starts", "a SIGTERM", "a exits"]


@pytest.mark.real_time
@pytest.mark.contract("B28")
def test_b28_a_second_ctrl_c_forces_the_end() -> None:
    """A program that hangs while it stops is killed, in order, by the second signal, and its status tells so."""
    log: list[str] = []

    async def stubborn(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        signal.raise_signal(signal.SIGINT)
        async for number in signals:
            log.append(signal.Signals(number).name)
            signal.raise_signal(signal.SIGINT)

    assert grouper.run(Ordered([grouper.Member("stubborn", stubborn, grace=60.0)])) == 128 + signal.SIGINT
    assert log == ["SIGINT"]


@pytest.mark.contract("B29")
@pytest.mark.parametrize("ready_first", [False, True])
async def test_b29_what_happened_first_counts_first(ready_first: bool) -> None:
    """Of a signal and a report in the same moment the group acts on the one that came first."""
    for _ in range(20):
        stage = Stage("ab", polite=True)
        async with watched(Ordered(stage.members())) as process:
            await stage.set_out()
            if ready_first:
                stage["a"].make_ready()
                process.signal(signal.SIGTERM)
            else:
                process.signal(signal.SIGTERM)
                stage["a"].make_ready()
            await ended(process)
        assert stage["b"].runs == (1 if ready_first else 0)
