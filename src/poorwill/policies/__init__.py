"""The parking policies that `serve` runs and `plan` judges: the same objects.

A policy learns only from finished idle stretches, through `observe`; it never sees the future. This
package is pure: no clock, no I/O, no randomness.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import get_args

from poorwill.core.errors import ErrorCode, OperatorFault
from poorwill.core.policy import Policy
from poorwill.core.settings import PolicyName, PolicySettings
from poorwill.core.words import Tier
from poorwill.policies.adaptive import Adaptive, adaptive
from poorwill.policies.costs import TierCosts, break_even_us, envelope_after_us, idle_problem
from poorwill.policies.floors import make_floor
from poorwill.policies.measured import Repriced, relearning, repriced
from poorwill.policies.metered import metered
from poorwill.policies.replay import Prices
from poorwill.policies.shadow import ShadowAccount, Shadowed
from poorwill.policies.timed import Timed, break_even, descend, fixed_idle

NAMES: tuple[PolicyName, ...] = get_args(PolicyName)
"""What `fleet.toml` may name."""


def make_policy(
    settings: PolicySettings, *, ladder: Sequence[Tier], costs: Mapping[Tier, TierCosts]
) -> Policy:
    """Return a new policy for one replica, with another in shadow if the settings name one.

    `ladder` is the replica's tiers from shallow to deep; `costs` has all of them. Raises OperatorFault for
    a name that is none of `NAMES`.
    """
    running = _policy(settings, ladder=ladder, costs=costs)
    if not settings.shadow:
        return running
    shadow = _policy(replace(settings, name=settings.shadow), ladder=ladder, costs=costs)
    prices = Prices(costs, costs[ladder[0]].active_nusd_h)
    return Shadowed(running=running, shadow=shadow, prices=prices)


def _policy(settings: PolicySettings, *, ladder: Sequence[Tier], costs: Mapping[Tier, TierCosts]) -> Policy:
    wait = settings.wait_nusd_s
    if settings.name == "fixed":
        deeper = [(tier, settings.rungs_us[tier]) for tier in ladder if tier in settings.rungs_us]
        first = [(ladder[0], settings.idle_us)] if settings.idle_us is not None else []
        return fixed_idle((*first, *deeper))
    if settings.name in ("break-even", "ladder"):
        rule = break_even if settings.name == "break-even" else descend

        def made(now: Mapping[Tier, TierCosts], held: float) -> Timed:
            return rule(ladder=ladder, costs=now, wait_nusd_s=round(wait * held))

        return metered(repriced(made, costs), costs)
    if settings.name == "adaptive":
        learnt = relearning(lambda now: adaptive(ladder=ladder, costs=now, wait_nusd_s=wait), costs)
        return metered(learnt, costs)
    raise OperatorFault(
        ErrorCode.CONFIG_INVALID, f"no policy {settings.name!r}", hint=f"policies: {', '.join(NAMES)}"
    )


__all__ = [
    "NAMES",
    "Adaptive",
    "Repriced",
    "ShadowAccount",
    "Shadowed",
    "TierCosts",
    "Timed",
    "adaptive",
    "break_even",
    "break_even_us",
    "descend",
    "envelope_after_us",
    "fixed_idle",
    "idle_problem",
    "make_floor",
    "make_policy",
    "repriced",
]
