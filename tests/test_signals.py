"""The queue of signals between whoever starts a runner and the runner."""

from __future__ import annotations

import signal

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from grouper.signals import KILL, STOP_SIGNALS, TERMINATE, Signals, signal_name

HUP, USR1, INT, QUIT = map(int, (signal.SIGHUP, signal.SIGUSR1, signal.SIGINT, signal.SIGQUIT))
ENDS = [INT, QUIT, TERMINATE, KILL]


async def taken(signals: Signals, count: int) -> list[int]:
    """The next so many signals, which must be pending."""
    with trio.fail_after(1):
        return [await anext(signals) for _ in range(count)]


async def nothing_pending(signals: Signals) -> bool:
    """Whether a reader would wait."""
    with trio.move_on_after(1):
        await signals.wait()
        return False
    return True


# Sending


@pytest.mark.parametrize(
    ("sent", "got"),
    [
        ([HUP, TERMINATE, USR1, INT], [HUP, TERMINATE, USR1, INT]),
        ([HUP, HUP, USR1, HUP, USR1], [HUP, USR1]),
        ([TERMINATE, TERMINATE, INT, TERMINATE], [TERMINATE, TERMINATE, INT, TERMINATE]),
        ([KILL, KILL], [KILL, KILL]),
        ([HUP, TERMINATE, HUP], [HUP, TERMINATE]),
    ],
    ids=["in order", "a pending pass-through once", "every stop signal", "every kill", "not moved to the end"],
)
async def test_what_is_sent_is_read(sent: list[int], got: list[int]) -> None:
    """Signals are read in the order sent; a pass-through signal that is still pending is not queued twice."""
    signals = Signals()
    for number in sent:
        signals.send(number)
    assert await taken(signals, len(got)) == got
    assert await nothing_pending(signals)


async def test_pass_through_signal_that_was_taken_is_queued_again() -> None:
    """Only while it is pending is a pass-through signal not queued twice."""
    signals = Signals()
    signals.send(HUP)
    await taken(signals, 1)
    signals.send(HUP)
    assert await taken(signals, 1) == [HUP]


async def test_enum_member_is_read_as_a_plain_number() -> None:
    """A runner gets ints, whatever kind of int was sent."""
    signals = Signals()
    signals.send(signal.SIGHUP)
    assert type(await anext(signals)) is int


@pytest.mark.parametrize(
    ("number", "error", "text"),
    [
        ("SIGTERM", TypeError, "signal.SIGTERM, not 'SIGTERM'"),
        (15.0, TypeError, "not 15.0"),
        (True, TypeError, "not True"),
        (None, TypeError, "not None"),
        (0, ValueError, "positive number such as signal.SIGTERM, not 0"),
        (-15, ValueError, "not -15"),
    ],
)
async def test_what_is_no_signal_number_is_refused(number: int, error: type[Exception], text: str) -> None:
    """Sending anything but a positive int raises, says how it is meant, and queues nothing."""
    signals = Signals()
    with pytest.raises(error, match=text):
        signals.send(number)
    assert await nothing_pending(signals)


async def test_send_wakes_a_reader() -> None:
    """A reader that waits gets what is sent then."""
    signals = Signals()
    got: list[int] = []
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            got.append(await anext(signals))

        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        signals.send(HUP)
    assert got == [HUP]


# received


def test_nothing_received_at_first() -> None:
    """`received` is None before a stop signal was sent."""
    assert Signals().received is None


def test_pass_through_signal_is_not_received() -> None:
    """`received` tells of stop signals only."""
    signals = Signals()
    signals.send(HUP)
    assert signals.received is None


@pytest.mark.parametrize("number", ENDS)
def test_stop_signal_is_received_when_sent(number: int) -> None:
    """`received` is set by the call of `send`, before anybody reads."""
    signals = Signals()
    signals.send(number)
    assert signals.received == number


async def test_received_stays_the_first() -> None:
    """`received` is the first stop signal, also after it was taken and others came."""
    signals = Signals()
    signals.send(INT)
    signals.send(TERMINATE)
    await taken(signals, 2)
    assert signals.received == INT


# wait


async def test_wait_takes_nothing() -> None:
    """`wait()` returns the first pending signal and leaves it pending."""
    signals = Signals()
    signals.send(HUP)
    signals.send(USR1)
    assert [await signals.wait(), await signals.wait()] == [HUP, HUP]
    assert await taken(signals, 2) == [HUP, USR1]


async def test_several_tasks_may_wait() -> None:
    """One signal wakes all that wait for one."""
    signals = Signals()
    got: list[int] = []
    async with trio.open_nursery() as nursery:

        async def look() -> None:
            got.append(await signals.wait())

        for _ in range(3):
            nursery.start_soon(look)
        await wait_all_tasks_blocked()
        signals.send(HUP)
    assert got == [HUP] * 3


async def test_waiter_waits_on_when_another_task_took_the_signal() -> None:
    """A task that was woken looks again: what another one took is not pending any more."""
    signals = Signals()
    got: list[int] = []
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            got.append(await anext(signals))

        for _ in range(2):
            nursery.start_soon(read)
        await wait_all_tasks_blocked()
        signals.send(HUP)
        await wait_all_tasks_blocked()
        assert got == [HUP]
        signals.send(USR1)
    assert got == [HUP, USR1]


async def test_cancelled_waiter_leaves_the_others_waiting() -> None:
    """A cancellation takes only its own task out of those that wait."""
    signals = Signals()
    got: list[int] = []
    async with trio.open_nursery() as nursery:

        async def look() -> None:
            got.append(await signals.wait())

        nursery.start_soon(look)
        await wait_all_tasks_blocked()
        assert await nothing_pending(signals)
        signals.send(HUP)
    assert got == [HUP]


async def test_cancelled_read_takes_nothing() -> None:
    """A cancellation while a signal is pending leaves it pending."""
    signals = Signals()
    signals.send(HUP)
    with trio.CancelScope() as scope:
        scope.cancel()
        await anext(signals)
    assert await taken(signals, 1) == [HUP]


async def test_wait_is_a_checkpoint_though_a_signal_is_pending() -> None:
    """A loop over pending signals lets other tasks run."""
    signals = Signals()
    signals.send(HUP)
    with assert_checkpoints():
        await signals.wait()


# cancelling


@pytest.mark.parametrize("number", ENDS)
async def test_stop_signal_cancels_the_block(number: int) -> None:
    """`cancelling()` cancels its block inside the call of `send`."""
    signals = Signals()
    with signals.cancelling() as scope:
        signals.send(number)
        assert scope.cancel_called
        await trio.sleep_forever()
    assert scope.cancelled_caught


@pytest.mark.parametrize("number", ENDS)
async def test_pending_stop_signal_cancels_the_block_at_once(number: int) -> None:
    """A stop signal that came before the block, and was not taken, cancels it."""
    signals = Signals()
    signals.send(HUP)
    signals.send(number)
    with signals.cancelling() as scope:
        await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_block_that_waits_for_nothing_is_not_cut_short() -> None:
    """A cancellation takes effect where a block waits: one that does not goes to its end, a pending stop signal or not."""
    signals = Signals()
    signals.send(TERMINATE)
    with signals.cancelling() as scope:
        pass
    assert (scope.cancel_called, scope.cancelled_caught) == (True, False)


async def test_pass_through_signal_cancels_nothing() -> None:
    """`cancelling()` looks at stop signals only, pending or to come."""
    signals = Signals()
    signals.send(HUP)
    with signals.cancelling() as scope:
        signals.send(USR1)
        await trio.lowlevel.checkpoint()
    assert not scope.cancel_called


async def test_block_leaves_the_stop_signal_pending() -> None:
    """What cancelled the block is read after it."""
    signals = Signals()
    with signals.cancelling():
        signals.send(TERMINATE)
        await trio.sleep_forever()
    assert await taken(signals, 1) == [TERMINATE]


async def test_stop_signal_that_was_taken_does_not_cancel_a_later_block() -> None:
    """A runner that has taken a stop signal may clean up under `cancelling()`, for a second one."""
    signals = Signals()
    signals.send(INT)
    await taken(signals, 1)
    with signals.cancelling() as scope:
        await trio.lowlevel.checkpoint()
        assert not scope.cancel_called
        signals.send(TERMINATE)
        await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_scope_is_not_cancelled_after_its_block() -> None:
    """The end of the block ends what `send` does to it."""
    signals = Signals()
    with signals.cancelling() as scope:
        pass
    signals.send(TERMINATE)
    assert not scope.cancel_called


async def test_every_open_block_is_cancelled() -> None:
    """Blocks in several tasks, and one within the other, are all cancelled; those that have ended are not."""
    signals = Signals()
    scopes: list[trio.CancelScope] = []

    async def work() -> None:
        with signals.cancelling() as outer, signals.cancelling() as inner:
            scopes.extend((outer, inner))
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        await wait_all_tasks_blocked()
        with signals.cancelling() as ended:
            pass
        signals.send(TERMINATE)
    assert [scope.cancel_called for scope in [*scopes, ended]] == [True, True, False]


async def test_error_of_the_block_passes() -> None:
    """`cancelling()` swallows its own cancellation and nothing else."""
    signals = Signals()
    signals.send(TERMINATE)
    with pytest.raises(ZeroDivisionError), signals.cancelling():
        raise ZeroDivisionError


# Sinks: what a group and a wrapper do with the signals that they were given


async def test_attached_sink_gets_the_pending_signals_first() -> None:
    """What was pending moves to the sink in order, and what is sent then is handed over in the call of `send`."""
    signals, sunk = Signals(), list[int]()
    signals.send(HUP)
    signals.send(TERMINATE)
    signals._attach(sunk.append)
    assert sunk == [HUP, TERMINATE]
    signals.send(INT)
    assert sunk == [HUP, TERMINATE, INT]
    assert await nothing_pending(signals)


def test_second_sink_is_refused() -> None:
    """Two groups on the same signals would each get half of them: the second one raises, and the first goes on."""
    signals, sunk = Signals(), list[int]()
    signals._attach(sunk.append)
    with pytest.raises(RuntimeError, match="give each running group Signals of its own"):
        signals._attach(lambda number: None)
    signals.send(HUP)
    assert sunk == [HUP]


def test_pass_through_signal_that_the_sink_has_not_acted_on_is_not_handed_over_twice() -> None:
    """In the inbox of a group a signal is still pending, until the group says that it has taken it."""
    signals, sunk = Signals(), list[int]()
    signals._attach(sunk.append)
    signals.send(HUP)
    signals.send(HUP)
    assert sunk == [HUP]
    signals._taken(HUP)
    signals.send(HUP)
    assert sunk == [HUP, HUP]


async def test_detached_sink_gives_back_what_it_did_not_act_on() -> None:
    """After the end of a group its unread signals are pending again, in order, and wake a reader."""
    signals, sunk = Signals(), list[int]()
    signals._attach(sunk.append)
    got: list[int] = []
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            got.append(await anext(signals))

        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        for number in (USR1, HUP, TERMINATE):
            signals.send(number)
        signals._taken(USR1)
        signals._detach(sunk[1:])
    assert got == [HUP]
    signals.send(HUP)
    assert await taken(signals, 2) == [TERMINATE, HUP]


async def test_pass_through_signal_given_back_is_not_queued_twice() -> None:
    """What is pending again counts as pending."""
    signals, sunk = Signals(), list[int]()
    signals._attach(sunk.append)
    signals.send(HUP)
    signals._taken(HUP)
    signals._detach(sunk)
    signals.send(HUP)
    assert await taken(signals, 1) == [HUP]
    assert await nothing_pending(signals)


async def test_relayed_signals_get_what_the_outer_ones_get() -> None:
    """A wrapped runner sees what was pending, what is sent during the block, and what was received."""
    signals = Signals()
    signals.send(HUP)
    signals.send(TERMINATE)
    with signals._relayed() as inner:
        assert inner.received == TERMINATE
        signals.send(INT)
        assert await taken(inner, 3) == [HUP, TERMINATE, INT]


async def test_relayed_signals_know_of_a_stop_signal_that_was_taken_before() -> None:
    """`received` is sticky through a wrapper too."""
    signals = Signals()
    signals.send(TERMINATE)
    await taken(signals, 1)
    with signals._relayed() as inner:
        assert inner.received == TERMINATE
        assert await nothing_pending(inner)


async def test_what_the_wrapped_runner_did_not_read_comes_back() -> None:
    """Unread signals are pending in the outer ones after the block, for the next runner."""
    signals = Signals()
    with signals._relayed() as inner:
        for number in (HUP, USR1, TERMINATE):
            signals.send(number)
        await taken(inner, 1)
    assert await taken(signals, 2) == [USR1, TERMINATE]


# Names


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (15, "SIGTERM"),
        (1, "SIGHUP"),
        (int(signal.SIGRTMIN), "SIGRTMIN"),
        (int(signal.SIGRTMIN) + 1, "SIGRTMIN+1"),
        (int(signal.SIGRTMAX), "SIGRTMAX"),
        (32, "signal 32"),
    ],
)
def test_signal_name(number: int, name: str) -> None:
    """Every number has a name, also those of which the enum of the standard library knows nothing."""
    assert signal_name(number) == name


def test_stop_signals() -> None:
    """SIGINT, SIGTERM and SIGQUIT end a group; SIGKILL is none of them, since it is no request."""
    assert frozenset({INT, TERMINATE, QUIT}) == STOP_SIGNALS
    assert (TERMINATE, KILL) == (15, 9)


def test_repr_names_the_signals() -> None:
    """The text of signals shows what is pending and what was received."""
    signals = Signals()
    assert repr(signals) == "<Signals pending=[] received=None>"
    signals.send(HUP)
    signals.send(TERMINATE)
    assert repr(signals) == "<Signals pending=[SIGHUP, SIGTERM] received=SIGTERM>"
