"""Random trees, through random lives, keep all their promises."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, given, settings

from .invariants import check
from .playing import play
from .scenarios import Scenario, scenarios

# To have a failing life shrunk, which takes minutes, add Phase.shrink.
PHASES = (Phase.generate,)


@settings(derandomize=True, deadline=None, max_examples=600, phases=PHASES, suppress_health_check=[HealthCheck.too_slow])
@given(scenarios())
def test_every_invariant_holds_in_every_life_of_every_tree(scenario: Scenario) -> None:
    """Whatever happens to a tree, all invariants hold."""
    check(play(scenario))
