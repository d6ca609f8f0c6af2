"""What a question about readiness is, and how it ends (section 1.5 of the contract)."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from grouper import NotReady
from grouper.readiness import CheckFailed, CheckTimeout, poll, probe
from grouper.work import Status, job, run_jobs

from ..readiness.asked import NO, YES, Asked, noted


@pytest.mark.contract("work R1")
async def test_r01_a_probe_asks_once_within_its_time() -> None:
    """Ready is a value, not yet is NotReady, and an error names the check; each probe is one call."""
    check = Asked([(YES, 1), (NO, 1), (OSError("gone"), 1)], name="db")
    question = probe(check, timeout=3)
    assert await question == YES
    with pytest.raises(NotReady, match="check 'db' is not ready: no"):
        await question
    with pytest.raises(CheckFailed, match="check 'db' failed: OSError: gone"):
        await question
    assert check.asked == [0, 1, 2]


@pytest.mark.contract("work R2")
async def test_r02_the_checks_own_error_is_kept() -> None:
    """It is the cause of what is raised."""
    error = OSError("gone")
    with pytest.raises(CheckFailed) as told:
        await probe(Asked([(error, 0)]))
    assert told.value.__cause__ is error


@pytest.mark.contract("work R3")
async def test_r03_a_timeout_is_no_cancellation() -> None:
    """A timeout is an error with the name and the seconds; a cancellation from outside goes on as one, also at the same instant."""
    with pytest.raises(CheckTimeout, match="check 'db' did not answer within 3 s"):
        await probe(Asked([(YES, 5)], name="db"), timeout=3)
    for seconds in (1, 3):
        with trio.move_on_after(seconds) as scope:
            with pytest.raises(trio.Cancelled) as cancelled:
                await probe(Asked([(YES, 5)], name="db"), timeout=3)
            assert noted(cancelled.value) == ["while waiting for check 'db'"]
            raise cancelled.value
        assert scope.cancelled_caught


@pytest.mark.contract("work R3")
async def test_r03_a_deaf_check_is_waited_for() -> None:
    """Nothing of it is left behind, and what it answers is the truth."""
    ended: list[float] = []

    async def deaf() -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(50)
        ended.append(trio.current_time())
        return YES

    assert await probe(deaf, timeout=3) == YES
    assert ended == [50]


@pytest.mark.contract("work R4")
async def test_r04_a_poll_asks_at_once_and_at_each_tick_until_it_knows() -> None:
    """Until ready, an error, or a cancellation."""
    check = Asked([(NO, 0), (NO, 0), (YES, 0)])
    assert await poll(check, every=5) == YES
    assert check.asked == [0, 5, 10]
    with pytest.raises(CheckFailed):
        await poll(Asked([(NO, 0), (OSError("gone"), 0), (YES, 0)]))
    with trio.move_on_after(12) as scope:
        await poll(Asked(), every=5)
    assert scope.cancelled_caught


@pytest.mark.contract("work R5")
@pytest.mark.parametrize("bad", [(OSError("gone"), 0), (YES, 5)])
async def test_r05_so_many_errors_in_a_row_are_tolerated(bad: tuple[Any, float]) -> None:
    """By default none; a probe that is too slow counts as one."""
    with pytest.raises((CheckFailed, CheckTimeout)):
        await poll(Asked([bad, (YES, 0)]), probe_timeout=1)
    assert await poll(Asked([bad, bad, (YES, 0)]), probe_timeout=1, tolerate=2) == YES
    with pytest.raises((CheckFailed, CheckTimeout)):
        await poll(Asked([bad, bad, bad, (YES, 0)]), probe_timeout=1, tolerate=2)


@pytest.mark.contract("work R6")
async def test_r06_missed_ticks_are_dropped_and_the_grid_stays_aligned() -> None:
    """A probe that is under way at a tick is followed by the next at once."""
    check = Asked([(NO, 150), (NO, 0), (NO, 0), (YES, 0)])
    await poll(check, every=100, probe_timeout=200)
    assert check.asked == [0, 150, 200, 300]


@pytest.mark.contract("work R7")
@pytest.mark.parametrize("every", [0, -1])
def test_r07_a_period_that_is_none_is_refused(every: float) -> None:
    """When the poll is made, by name."""
    with pytest.raises(ValueError, match=f"poll of check 'asked': every={every} is not a positive"):
        poll(Asked(), every=every)


@pytest.mark.contract("work R8")
async def test_r08_a_poll_has_no_limit_and_its_period_does_not_change() -> None:
    """Neither of attempts nor of time, unless it is given one; there is no back-off and no jitter."""
    check = Asked([*([(NO, 0)] * 9_999), (YES, 0)])
    await poll(check, every=2)
    assert check.asked == list(range(0, 20_000, 2))


@pytest.mark.contract("work R9")
async def test_r09_a_poll_can_be_the_body_of_a_job() -> None:
    """Ready is the job's value, an error its error; and what a probe calls "not yet" the job does too."""
    report = await run_jobs(
        {
            "ready": job(poll(Asked([(NO, 0), (YES, 0)]))),
            "failed": job(poll(Asked([(OSError("gone"), 0)]))),
            "not yet": job(probe(Asked())),
        },
        on_error="continue",
    )
    assert [each.status for each in report.values()] == [Status.SUCCESS, Status.FAILED, Status.NOT_READY]
    assert report["ready"].value == YES
    assert isinstance(report["failed"].error, CheckFailed)


@pytest.mark.contract("work R9")
async def test_r09_a_poll_is_an_async_callable() -> None:
    """Of no arguments, to be called any number of times."""
    body = poll(Asked([(NO, 0), (YES, 0)]))
    assert [await body(), await body()] == [YES, YES]
