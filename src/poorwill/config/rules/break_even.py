"""Checks idle times against the break-even, which rates and measured wakes give."""

from collections.abc import Callable, Sequence

from poorwill.config.key_lines import NO_LINES, KeyLines
from poorwill.config.problems import FileProblems, ModelProblems
from poorwill.core.problems import Problem
from poorwill.core.settings import FleetSettings, ModelSettings
from poorwill.core.words import Tier
from poorwill.policies import TierCosts, idle_problem

ParkingCosts = Callable[[ModelSettings, Tier], TierCosts | None]
"""Returns what parking a model in a tier costs; None if rates or measured wakes are missing."""


def short_idles(fleet: FleetSettings, costs: ParkingCosts, lines: KeyLines = NO_LINES) -> Sequence[Problem]:
    """Return a problem for each fixed idle time that is shorter than the break-even, unless allowed."""
    problems = FileProblems(lines=lines)
    for model in fleet.models:
        policy = model.policy
        if policy.idle_us is None or policy.allow_short_idle:
            continue
        known = costs(model, model.replica.park.ladder[0])
        if known is None:
            continue
        found = idle_problem(policy.idle_us, known, wait_nusd_s=policy.wait_nusd_s)
        if found is not None:
            here = ModelProblems(name=model.name, found=problems)
            here.wrong(["policy.idle_s"], found.what, found.hint)
    return problems.in_order()
