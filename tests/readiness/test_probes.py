"""A question, its answers, and what ends it otherwise."""

from __future__ import annotations

import copy
import functools
import gc
import math
import pickle
import re
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from grouper import Member, NotReady, Ordered, Signals, invoke
from grouper.readiness import Check, CheckError, CheckFailed, CheckTimeout, Poll, Probe, poll, probe

from .asked import NO, YES, Asked, noted

each_kind = pytest.mark.parametrize("ask", [probe, poll])
Ask = Callable[..., Any]


async def caught(question: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    """What a question returned, or what it raised."""
    try:
        return await question, None
    except BaseException as error:
        return None, error


async def deaf(seconds: float) -> str:
    """An answer that no cancellation hastens."""
    with trio.CancelScope(shield=True):
        await trio.sleep(seconds)
    return "late"


# What is asked


@each_kind
async def test_awaiting_it_gives_what_the_check_returned(ask: Ask) -> None:
    """Whatever that is."""
    assert await ask(Asked([(YES, 1)])) == YES
    assert await ask(Asked([(None, 0)])) is None
    assert await ask(Asked([(0, 0)])) == 0


@each_kind
async def test_calling_it_without_arguments_is_the_same(ask: Ask) -> None:
    """It is a check itself."""
    question = ask(Asked([(YES, 1)]))
    assert await question() == YES


@each_kind
async def test_each_await_asks_anew(ask: Ask) -> None:
    """One object, any number of runs."""
    check = Asked([("first", 0), ("second", 0), ("third", 0)])
    question = ask(check)
    assert [await question, await question(), await question] == ["first", "second", "third"]


@each_kind
async def test_several_tasks_can_ask_at_once(ask: Ask) -> None:
    """Each has its own run: a cancellation of one is not the other's."""
    question = ask(Asked([(YES, 5)]))
    values: list[Any] = []

    async def one() -> None:
        values.append(await question)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        nursery.start_soon(one)
        with trio.move_on_after(1):
            await question
    assert values == [YES, YES]


def test_its_name_is_the_one_given_or_the_checks() -> None:
    """The attribute `name`, what it is called where it was defined, or at last its repr."""

    async def database() -> None: ...

    partial = functools.partial(deaf, 1)
    assert probe(Asked(name="db")).name == "db"
    assert probe(Asked(name="db"), name="mine").name == "mine"
    assert probe(database).name.endswith("database")
    assert poll(partial).name == repr(partial)


# What it says


async def test_a_probe_of_what_is_not_ready_says_why() -> None:
    """With the name of the check; the check's own word is the cause."""
    with pytest.raises(NotReady) as told:
        await probe(Asked([(NO, 0)]))
    assert str(told.value) == "check 'asked' is not ready: no"
    assert told.value.__cause__ is NO


async def test_false_is_not_yet() -> None:
    """False itself; other values that are false are values."""
    with pytest.raises(NotReady, match=r"^check 'asked' is not ready: it returned False$") as told:
        await probe(Asked([(False, 0)]))
    assert told.value.__cause__ is None


async def test_not_ready_without_a_reason() -> None:
    """Nothing is made up."""
    with pytest.raises(NotReady, match=r"^check 'asked' is not ready$"):
        await probe(Asked([(NotReady(), 0)]))


@each_kind
async def test_the_checks_own_error_is_the_cause_of_check_failed(ask: Ask) -> None:
    """The message names both."""
    error = ValueError("no such table")
    with pytest.raises(CheckFailed) as told:
        await ask(Asked([(error, 0)]))
    assert str(told.value) == "check 'asked' failed: ValueError: no such table"
    assert told.value.name == "asked"
    assert told.value.__cause__ is error


@each_kind
async def test_a_check_that_is_not_async_after_all_has_failed(ask: Ask) -> None:
    """As with a lambda, of which it cannot be seen before."""
    with pytest.raises(CheckFailed, match="TypeError"):
        await ask(lambda: 5, name="lambda")


async def test_a_probe_has_a_time_limit() -> None:
    """The check is cancelled then."""
    check = Asked([(YES, 5)])
    with pytest.raises(CheckTimeout) as told:
        await probe(check, timeout=3)
    assert str(told.value) == "check 'asked' did not answer within 3 s"
    assert (told.value.name, told.value.seconds) == ("asked", 3)
    assert (check.cancelled, trio.current_time()) == (1, 3)


async def test_a_probe_without_time_hears_what_is_said_at_once() -> None:
    """timeout=0 is a limit like another."""

    async def at_once() -> str:
        return YES

    assert await probe(at_once, timeout=0) == YES
    with pytest.raises(CheckTimeout, match="within 0 s"):
        await probe(Asked([(YES, 0)]), timeout=0)


@each_kind
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), BaseExceptionGroup("", [KeyboardInterrupt()])])
async def test_what_is_no_exception_goes_on_unchanged(ask: Ask, error: BaseException) -> None:
    """It is no answer of the check."""
    _, told = await caught(ask(Asked([(error, 0)]), **({"tolerate": 5} if ask is poll else {})))
    assert told is error
    assert noted(told) == []


# Cancellation from outside


@each_kind
async def test_a_cancellation_goes_on_with_a_note(ask: Ask) -> None:
    """It is never told as a timeout, and is caught where it came from."""
    check = Asked([(YES, 5)])
    with trio.move_on_after(1) as scope:
        _, told = await caught(ask(check))
        assert isinstance(told, trio.Cancelled)
        assert noted(told) == ["while waiting for check 'asked'"]
        raise told
    assert scope.cancelled_caught
    assert check.cancelled == 1


async def test_a_poll_that_waits_for_its_next_probe_can_be_cancelled() -> None:
    """With the same note."""
    with trio.move_on_after(1) as scope:
        _, told = await caught(poll(Asked(), every=5))
        assert noted(told) == ["while waiting for check 'asked'"]
        assert told is not None
        raise told
    assert scope.cancelled_caught


async def test_a_poll_of_a_check_that_never_waits_can_be_cancelled() -> None:
    """It gives way between probes, also when they are always late."""

    async def never() -> None:
        raise NotReady("never")

    question = poll(never, every=1e-9)
    with trio.CancelScope() as scope:
        scope.cancel()
        await question
    assert scope.cancelled_caught


@each_kind
async def test_a_cancellation_at_the_instant_of_the_timeout_wins(ask: Ask) -> None:
    """The deadlines of both are the same."""
    with trio.move_on_after(3) as scope:
        _, told = await caught(ask(Asked([(YES, 5)]), timeout=3))
        assert isinstance(told, trio.Cancelled)
        raise told
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    "question",
    [probe(Asked([(YES, 5)]), timeout=3), poll(Asked([(YES, 5)]), timeout=3), poll(Asked(), every=2, timeout=3)],
    ids=["probe", "poll", "poll between probes"],
)
@pytest.mark.parametrize("first", [True, False])
async def test_a_cancellation_by_a_task_that_wakes_with_the_timeout_wins(question: Probe[Any] | Poll[Any], first: bool) -> None:
    """Whichever of the two runs first."""
    outcome: list[BaseException | None] = []
    scope = trio.CancelScope()

    async def one() -> None:
        with scope:
            _, told = await caught(question)
            outcome.append(told)
            assert told is not None
            raise told

    async def two() -> None:
        await trio.sleep(3)
        scope.cancel()

    async with trio.open_nursery() as nursery:
        for task in (one, two) if first else (two, one):
            nursery.start_soon(task)
            await wait_all_tasks_blocked()
    assert [type(told) for told in outcome] == [trio.Cancelled]
    assert scope.cancelled_caught


async def test_a_cancellation_at_the_end_of_a_polls_last_wait_wins() -> None:
    """Where no probe is under way."""
    with trio.move_on_after(3) as scope:
        await poll(Asked(), every=2, timeout=3)
    assert scope.cancelled_caught


@each_kind
async def test_an_answer_is_the_truth_although_the_caller_was_cancelled(ask: Ask) -> None:
    """A check that is deaf is waited for, and what it says is not lost."""
    with trio.move_on_after(1):
        assert await ask(lambda: deaf(5), name="deaf") == "late"
        assert trio.current_time() == 5


# An answer at the last moment


@each_kind
async def test_an_answer_at_the_instant_of_the_timeout_is_the_truth(ask: Ask) -> None:
    """The check was no longer waiting when it was cancelled."""

    async def just() -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(3)
        return YES

    assert await ask(just, timeout=3) == YES


@each_kind
async def test_an_answer_after_the_timeout_is_the_truth(ask: Ask) -> None:
    """It had to be waited for in any case."""
    assert await ask(lambda: deaf(5), name="deaf", timeout=3) == "late"


async def test_an_error_after_the_timeout_is_the_truth() -> None:
    """And so is a "not yet"."""
    for answer, kind in ((OSError("gone"), CheckFailed), (NotReady("no"), NotReady)):

        async def late(answer: Exception = answer) -> None:
            await deaf(5)
            raise answer

        with pytest.raises(kind):
            await probe(late, timeout=3)


async def test_not_yet_after_the_end_of_the_poll_is_the_end_of_the_poll() -> None:
    """And is what it knows."""

    async def late() -> None:
        await deaf(5)
        raise NotReady("nearly")

    with pytest.raises(CheckTimeout, match=r"within 3 s: 1 probe, the last answer: nearly$"):
        await poll(late, timeout=3)


# Nurseries in a check


def in_nursery(*children: Check[Any]) -> Check[None]:
    async def check() -> None:
        async with trio.open_nursery() as nursery:
            for child in children:
                nursery.start_soon(child)

    return check


async def raises_when_cancelled(error: Exception) -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise error


async def raise_at_once(error: Exception) -> None:
    raise error


def quickly(error: Exception) -> Check[Any]:
    return functools.partial(raise_at_once, error)


def cancelled_into(error: Exception) -> Check[Any]:
    return functools.partial(raises_when_cancelled, error)


async def test_a_group_of_nothing_but_not_ready_is_not_yet() -> None:
    """All reasons are told, also from nurseries in nurseries."""
    check = in_nursery(cancelled_into(NotReady("b")), in_nursery(quickly(NotReady("a"))))
    with pytest.raises(NotReady) as told:
        await probe(check, name="x")
    assert str(told.value) in ("check 'x' is not ready: a; b", "check 'x' is not ready: b; a")
    assert isinstance(told.value.__cause__, ExceptionGroup)
    with pytest.raises(CheckTimeout):
        await poll(check, timeout=3)


async def test_a_group_with_an_error_has_failed() -> None:
    """The error counts more than the "not yet" beside it."""
    check = in_nursery(cancelled_into(NotReady("b")), quickly(OSError("a")))
    with pytest.raises(CheckFailed, match="OSError: a") as told:
        await poll(check)
    assert isinstance(told.value.__cause__, ExceptionGroup)


@each_kind
async def test_the_timeout_of_a_check_with_a_nursery(ask: Ask) -> None:
    """However many of its tasks are cancelled."""
    check = in_nursery(trio.sleep_forever, trio.sleep_forever)
    with pytest.raises(CheckTimeout):
        await ask(check, timeout=3)


@each_kind
async def test_a_cancellation_in_a_group_goes_on_with_a_note(ask: Ask) -> None:
    """And is caught where it came from."""
    check = in_nursery(trio.sleep_forever, trio.sleep_forever)
    with trio.move_on_after(1) as scope:
        _, told = await caught(ask(check, name="x"))
        assert noted(told) == ["while waiting for check 'x'"]
        assert told is not None
        raise told
    assert scope.cancelled_caught


@each_kind
async def test_an_error_beside_the_callers_cancellation_is_not_lost(ask: Ask) -> None:
    """As everywhere in trio; it says for which check it was waited."""
    error = OSError("a")
    with pytest.raises(ExceptionGroup) as told, trio.move_on_after(1):
        await ask(in_nursery(trio.sleep_forever, cancelled_into(error)), name="x")
    assert told.value.exceptions == (error,)
    assert noted(told.value) == ["while waiting for check 'x'"]


@each_kind
async def test_not_yet_beside_the_callers_cancellation_is_no_error(ask: Ask) -> None:
    """The cancellation alone goes on."""
    with trio.move_on_after(1) as scope:
        await ask(in_nursery(trio.sleep_forever, cancelled_into(NotReady("a"))))
    assert scope.cancelled_caught


@each_kind
async def test_an_error_beside_the_timeouts_cancellation_is_the_answer(ask: Ask) -> None:
    """The check has failed, and how is known."""
    with pytest.raises(CheckFailed, match="OSError: a"):
        await ask(in_nursery(trio.sleep_forever, cancelled_into(OSError("a"))), timeout=3)


# A check that is a probe or a poll


async def test_a_question_can_be_a_check() -> None:
    """Its "not yet" and its value are the outer one's; what has said the name is not said again."""
    check = Asked([(NO, 0), (YES, 0)])
    assert await poll(probe(check)) == YES
    with pytest.raises(NotReady, match=r"^check 'asked' is not ready: no$"):
        await probe(probe(Asked()))
    with pytest.raises(CheckTimeout, match=r"^check 'asked' did not answer within 1 s$"):
        await probe(probe(Asked([(YES, 5)]), timeout=1))


async def test_a_question_with_another_name_is_a_check_like_any_other() -> None:
    """Its errors are the check's own."""
    with pytest.raises(CheckFailed, match=r"^check 'db' failed: CheckTimeout: check 'asked' did not answer within 1 s$") as told:
        await probe(probe(Asked([(YES, 5)]), timeout=1), name="db")
    assert isinstance(told.value.__cause__, CheckTimeout)
    with pytest.raises(NotReady, match=r"^check 'db' is not ready: check 'asked' is not ready: no$"):
        await probe(probe(Asked()), name="db")


async def test_the_timeout_of_a_probe_within_is_not_the_polls() -> None:
    """It is an error to be tolerated, and not the end."""
    check = Asked([(YES, 2), (YES, 0)])
    assert await poll(probe(check, timeout=1), tolerate=1, timeout=5) == YES


# The poll


async def test_a_poll_asks_at_once_and_then_at_each_tick() -> None:
    """Until the check is ready."""
    check = Asked([(NO, 0), (NO, 0), (YES, 0)])
    assert await poll(check, every=4) == YES
    assert check.asked == [0, 4, 8]


@pytest.mark.parametrize(
    ("seconds", "asked"),
    [
        ([150], [0, 150, 200, 300]),
        ([250], [0, 250, 300, 400]),
        ([100], [0, 100, 200, 300]),
        ([99], [0, 100, 200, 300]),
        ([150, 60], [0, 150, 210, 300]),
        ([150, 50], [0, 150, 200, 300]),
        ([150, 270, 0], [0, 150, 420, 500]),
    ],
)
async def test_missed_ticks_are_dropped_and_the_grid_stays(seconds: list[float], asked: list[float]) -> None:
    """A probe over a tick is followed by the next at once, whatever number of ticks it missed."""
    check = Asked([*((NO, each) for each in seconds), *([(NO, 0)] * (3 - len(seconds))), (YES, 0)])
    await poll(check, every=100, probe_timeout=math.inf)
    assert check.asked == asked


async def test_the_grid_has_no_drift() -> None:
    """Sums of rounding errors do not move it, nor do they make one tick two."""
    check = Asked([*([(NO, 0)] * 1000), (YES, 0)])
    await poll(check, every=0.1)
    assert check.asked == [pytest.approx(0.1 * number) for number in range(1001)]


async def test_each_probe_of_a_poll_is_bounded() -> None:
    """Its timeout is an error."""
    with pytest.raises(CheckTimeout, match=r"^check 'asked' did not answer within 2 s$"):
        await poll(Asked([(YES, 5)]), probe_timeout=2)
    assert trio.current_time() == 2


@pytest.mark.parametrize("bad", [(OSError("a"), 0), (YES, 5)])
async def test_errors_in_a_row_are_tolerated(bad: tuple[Any, float]) -> None:
    """Timeouts as well; one more ends the poll."""
    assert await poll(Asked([bad, bad, (YES, 0)]), probe_timeout=1, tolerate=2) == YES
    check = Asked([bad, bad, bad, (YES, 0)])
    with pytest.raises(CheckError):
        await poll(check, probe_timeout=1, tolerate=2)
    assert len(check.asked) == 3


async def test_not_yet_ends_a_row_of_errors() -> None:
    """Only those in a row are counted."""
    bad = (OSError("a"), 0)
    assert await poll(Asked([bad, (NO, 0), bad, (NO, 0), bad, (YES, 0)]), tolerate=1) == YES


async def test_a_polls_timeout_tells_what_it_knows() -> None:
    """How long, how many probes, and the last answer, which is the cause."""
    with pytest.raises(CheckTimeout) as told:
        await poll(Asked(), timeout=10, every=4)
    assert str(told.value) == "check 'asked' was not ready within 10 s: 3 probes, the last answer: no"
    assert (told.value.name, told.value.seconds) == ("asked", 10)
    assert str(told.value.__cause__) == "check 'asked' is not ready: no"
    assert told.value.__cause__ is not None
    assert told.value.__cause__.__cause__ is NO
    assert trio.current_time() == 10


async def test_a_polls_timeout_tells_of_errors_that_were_tolerated() -> None:
    """Of the last one."""
    with pytest.raises(CheckTimeout, match=r"the last answer: OSError: a$") as told:
        await poll(Asked([(OSError("a"), 0)]), timeout=1.5, tolerate=5)
    assert isinstance(told.value.__cause__, CheckFailed)
    with pytest.raises(CheckTimeout, match=r"the last answer: no answer within 1 s$") as told:
        await poll(Asked([(YES, 5)]), timeout=1.5, probe_timeout=1, tolerate=5)
    assert isinstance(told.value.__cause__, CheckTimeout)


async def test_a_polls_timeout_cancels_the_probe() -> None:
    """It is not a timeout of the probe: what was said before is the last answer."""
    check = Asked([(NO, 0), (YES, 5)])
    with pytest.raises(CheckTimeout, match=r"within 3 s: 2 probes, the last answer: no$"):
        await poll(check, timeout=3, tolerate=5)
    assert check.cancelled == 1
    assert trio.current_time() == 3


@pytest.mark.parametrize("probe_timeout", [3, 10])
async def test_a_poll_that_got_no_answer_says_so(probe_timeout: float) -> None:
    """Also where the time of the first probe is the poll's."""
    with pytest.raises(CheckTimeout, match=r"within 3 s: 1 probe, the last answer: there was none$") as told:
        await poll(Asked([(YES, 5)]), timeout=3, probe_timeout=probe_timeout, tolerate=1)
    assert told.value.__cause__ is None


async def test_no_probe_begins_when_the_time_of_the_poll_is_over() -> None:
    """Not at that instant either; but one there always is."""
    check = Asked()
    with pytest.raises(CheckTimeout):
        await poll(check, timeout=2, every=1)
    assert check.asked == [0, 1]
    with pytest.raises(CheckTimeout, match="1 probe,"):
        await poll(check, timeout=0)


class Counting:
    """A check that has another for each run of a poll."""

    name = "counting"

    def __init__(self) -> None:
        self.runs: list[Asked] = []

    async def __call__(self) -> Any:
        raise AssertionError("a poll should ask what it was given for itself")

    def for_poll(self) -> Check[Any]:
        self.runs.append(Asked([(NO, 0), (YES, 0)]))
        return self.runs[-1]


async def test_a_check_can_have_one_of_its_own_for_each_poll() -> None:
    """So it can keep something from probe to probe, and nothing from poll to poll."""
    check = Counting()
    question = poll(check)
    assert [await question, await question] == [YES, YES]
    assert [len(run.asked) for run in check.runs] == [2, 2]


@each_kind
async def test_a_question_can_be_a_members_ready_when(ask: Ask) -> None:
    """The member is ready when the answer is."""
    check = Asked([(NO, 0), (YES, 0)])

    async def silent(signals: Signals, /, *, task_status: trio.TaskStatus[None]) -> None:
        await signals.wait()

    async with invoke(Ordered([Member("silent", silent, ready_when=ask(check))])):
        assert len(check.asked) == 2


# The house


@each_kind
async def test_errors_leave_no_garbage(ask: Ask) -> None:
    """What was raised is freed when it is dropped, with all that its frames hold."""
    error = OSError("a")
    question = ask(Asked([(error, 0)]))
    gc.disable()
    try:
        _, told = await caught(question)
        assert isinstance(told, CheckFailed)
        error.__traceback__ = None
        there = weakref.ref(told)
        told = None
        assert there() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "error",
    [CheckError("x", "is wrong"), CheckFailed("x", "OSError: a"), CheckTimeout("x", 3), CheckTimeout("x", 3, "was not ready")],
)
def test_errors_can_be_pickled_and_copied(error: CheckError) -> None:
    """With their attributes, their text and their notes."""
    error.add_note("a note")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)


@each_kind
def test_questions_are_frozen(ask: Ask) -> None:
    """They can be shared."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        ask(Asked()).timeout = 3


class Argued:
    async def needs(self, what: str) -> None: ...


@each_kind
@pytest.mark.parametrize(
    ("check", "told"),
    [
        (5, "5 is not an async function"),
        (None, "None is not an async function"),
        (Asked, "is not an async function"),
        (time.sleep, "is not async"),
        (Argued().needs, r"Argued.needs\(what.* needs arguments .*functools.partial"),
    ],
    ids=["number", "none", "class", "blocking", "arguments"],
)
def test_what_is_no_check_is_refused(ask: Ask, check: Any, told: str) -> None:
    """When the question is made."""
    with pytest.raises(TypeError, match=f"^{ask.__name__}: .*{told}"):
        ask(check)


@each_kind
def test_a_check_that_was_called_already_is_refused(ask: Ask) -> None:
    """It names the check and the fix, and there is no warning of a coroutine that was never awaited."""
    with pytest.raises(TypeError, match=r"deaf\(\) was called already: give the function itself, without the call"):
        ask(deaf(1))


@pytest.mark.parametrize(
    ("ask", "given", "kind", "told"),
    [
        (probe, {"timeout": -1}, ValueError, "probe of check 'asked': timeout=-1"),
        (probe, {"timeout": math.nan}, ValueError, "timeout=nan"),
        (probe, {"timeout": True}, TypeError, "timeout=True is not a number"),
        (probe, {"timeout": "3"}, TypeError, "timeout='3' is not a number"),
        (probe, {"name": ""}, TypeError, "name='' is not the name"),
        (probe, {"name": 3}, TypeError, "name=3 is not the name"),
        (poll, {"every": 0}, ValueError, "poll of check 'asked': every=0 is not a positive"),
        (poll, {"every": -1}, ValueError, "every=-1 is not a positive"),
        (poll, {"every": math.inf}, ValueError, "every=inf is not a positive, finite"),
        (poll, {"every": math.nan}, ValueError, "every=nan is not a positive"),
        (poll, {"every": True}, TypeError, "every=True is not a number"),
        (poll, {"probe_timeout": -1}, ValueError, "probe_timeout=-1"),
        (poll, {"timeout": math.nan}, ValueError, "timeout=nan"),
        (poll, {"timeout": False}, TypeError, "timeout=False"),
        (poll, {"tolerate": -1}, ValueError, "tolerate=-1 is negative"),
        (poll, {"tolerate": 1.5}, TypeError, "tolerate=1.5 is not a number of errors"),
        (poll, {"tolerate": True}, TypeError, "tolerate=True is not a number of errors"),
    ],
)
def test_bad_arguments_are_refused_by_name(ask: Ask, given: dict[str, Any], kind: type[Exception], told: str) -> None:
    """When the question is made."""
    with pytest.raises(kind, match=re.escape(told)):
        ask(Asked(), **given)


async def test_a_check_whose_arguments_cannot_be_seen_is_taken() -> None:
    """It shows when it is called."""

    class Hidden(Asked):
        __signature__ = "none of your business"

    assert await probe(Hidden([(YES, 0)])) == YES


async def test_types_follow_the_check() -> None:
    """What a check returns is what its questions give; a type checker reads this."""

    async def number() -> int:
        return 3

    once: Probe[int] = probe(number)
    until: Poll[int] = poll(once)
    again: Check[int] = until
    assert (await once) + (await until) + (await again()) == 9
