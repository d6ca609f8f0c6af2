"""Ctrl-C at every executed line of the engine and of `invoke`, one at a time."""

from __future__ import annotations

import signal
import sys

import pytest

from grouper import StopTimeout

from .injection import Injector, in_modules, moments
from .scenario import Account, Scenario, direct, invoked, leaves, run
from .supervised_scenario import MineError, supervised

ENGINE = (
    "grouper.groups.deadlines",
    "grouper.groups.dynamic",
    "grouper.groups.engine",
    "grouper.groups.inbox",
    "grouper.groups.lives",
    "grouper.groups.operations",
    "grouper.groups.recovery",
    "grouper.groups.static",
    "grouper.groups.verdict",
    "grouper.groups.walks",
    "grouper.main",
    "grouper.process",
)
"""The modules between whose lines Ctrl-C comes."""


@pytest.mark.parametrize("scenario", [invoked, direct])
@pytest.mark.parametrize("times", [1, pytest.param(sys.maxsize, marks=pytest.mark.soak)])
def test_ctrl_c_between_any_two_lines_neither_hangs_nor_leaves_a_member(
    scenario: Scenario, times: int, seeded_scheduler: int
) -> None:
    """Wherever it comes, the tree ends, all that was started has ended, and the KeyboardInterrupt comes out."""
    run(scenario, Account(), Injector(in_modules(*ENGINE)), seeded_scheduler)  # the first run imports modules, line by line
    watched = Injector(in_modules(*ENGINE))
    assert leaves(run(scenario, Account(), watched, seeded_scheduler)) == {StopTimeout}
    places = moments(watched.lines, times)
    for at in places:
        account = Account()
        injector = Injector(in_modules(*ENGINE), at, lambda: signal.raise_signal(signal.SIGINT), watched)
        error = run(scenario, account, injector, seeded_scheduler)
        where = f"Ctrl-C at {injector.struck} (line {at} of the run)"
        assert injector.struck is not None, where
        assert account.left == [], f"{where}: {account.left} are left running"
        kinds = leaves(error)
        assert KeyboardInterrupt in kinds, f"{where}: {error!r} came out"
        assert kinds <= {KeyboardInterrupt, StopTimeout}, f"{where}: {error!r} came out"
    assert len(places) > 400, "the scenario executes too few lines to show anything"


SUPERVISION = ("grouper.groups.lives", "grouper.groups.operations", "grouper.groups.recovery")
"""The modules by which something is started again or operated."""


@pytest.mark.parametrize("modules", [SUPERVISION, pytest.param(ENGINE, marks=pytest.mark.soak)])
def test_ctrl_c_between_any_two_lines_of_a_restart_leaves_nothing(modules: tuple[str, ...], seeded_scheduler: int) -> None:
    """Wherever it comes while members restart and are operated, all has ended and nothing is held."""
    run(supervised, Account(), Injector(in_modules(*modules)), seeded_scheduler)
    watched = Injector(in_modules(*modules))
    assert run(supervised, Account(), watched, seeded_scheduler) is None
    places = moments(watched.lines, 1)
    for at in places:
        account = Account()
        injector = Injector(in_modules(*modules), at, lambda: signal.raise_signal(signal.SIGINT), watched)
        error = run(supervised, account, injector, seeded_scheduler)
        where = f"Ctrl-C at {injector.struck} (line {at} of the run)"
        assert injector.struck is not None, where
        assert account.left == [], f"{where}: {account.left} are left"
        kinds = leaves(error)
        assert KeyboardInterrupt in kinds, f"{where}: {error!r} came out"
        assert kinds <= {KeyboardInterrupt, MineError}, f"{where}: {error!r} came out"
    assert len(places) > 250, "the scenario executes too few lines to show anything"
