"""An ordinary error inside the engine's own loop: the last defence."""

from __future__ import annotations

import pytest

from grouper import MemberKilled, StopTimeout

from .injection import Injector, beneath, in_modules, moments
from .scenario import Account, Scenario, direct, invoked, leaves, run
from .supervised_scenario import MineError, supervised

# With `post` and `started` a nested group tells the outer one, with `report` and `take_now` a member's task tells its group: lines
# between which nothing can fail. What goes wrong in a note is meant to be ignored.
SURE = frozenset({"post", "started", "report", "take_now", "_note"})

LOOP = beneath(
    in_modules(
        "grouper.groups.deadlines",
        "grouper.groups.dynamic",
        "grouper.groups.engine",
        "grouper.groups.inbox",
        "grouper.groups.lives",
        "grouper.groups.operations",
        "grouper.groups.recovery",
        "grouper.groups.verdict",
        "grouper.groups.walks",
    ),
    "_loop",
    "take_now",
    but=SURE,
)


class BrokenEngineError(Exception):
    """A fault of the engine."""


def strike() -> None:
    raise BrokenEngineError


@pytest.mark.parametrize("scenario", [invoked, direct])
def test_an_error_at_any_line_of_the_loop_leaves_nothing_running(scenario: Scenario, seeded_scheduler: int) -> None:
    """Wherever the engine breaks, all that was started has ended and the error comes out."""
    run(scenario, Account(), Injector(LOOP), seeded_scheduler)  # the first run imports modules
    watched = Injector(LOOP)
    assert leaves(run(scenario, Account(), watched, seeded_scheduler)) == {StopTimeout}
    places = moments(watched.lines, 1)
    for at in places:
        account = Account()
        injector = Injector(LOOP, at, strike, watched)
        error = run(scenario, account, injector, seeded_scheduler)
        where = f"an error at {injector.struck} (line {at} of the run)"
        assert injector.struck is not None, where
        assert account.left == [], f"{where}: {account.left} are left running"
        assert BrokenEngineError in leaves(error), f"{where}: {error!r} came out"
        assert leaves(error) <= {BrokenEngineError, StopTimeout}, f"{where}: {error!r} came out"
    assert len(places) > 100, "the scenario executes too few lines to show anything"


RESTARTING = beneath(in_modules("grouper.groups.operations", "grouper.groups.recovery"), "_loop", "take_now", but=SURE)


def test_an_error_at_any_line_of_a_restart_leaves_nothing_running_or_held(seeded_scheduler: int) -> None:
    """Wherever the engine breaks while members restart and are operated, all has ended and nothing is held."""
    run(supervised, Account(), Injector(RESTARTING), seeded_scheduler)
    watched = Injector(RESTARTING)
    assert run(supervised, Account(), watched, seeded_scheduler) is None
    places = moments(watched.lines, 1)
    for at in places:
        account = Account()
        injector = Injector(RESTARTING, at, strike, watched)
        error = run(supervised, account, injector, seeded_scheduler)
        where = f"an error at {injector.struck} (line {at} of the run)"
        assert injector.struck is not None, where
        assert account.left == [], f"{where}: {account.left} are left"
        assert leaves(error) <= {BrokenEngineError, MineError, MemberKilled}, f"{where}: {error!r} came out"
    assert len(places) > 150, "the scenario executes too few lines to show anything"
