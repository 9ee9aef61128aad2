"""A fleet's settings, read from its configuration."""

from collections.abc import Mapping

from poorwill.cli.parsing.fleet import fleet_path
from poorwill.config import load_fleet
from poorwill.core.settings import FleetSettings


def read_fleet(fleet: str, env: Mapping[str, str], *, machine: bool = False) -> FleetSettings:
    """Read the configuration. Raises ConfigFault with every problem.

    `machine` also checks what serving needs: model files, secrets, and the engines' own options.
    """
    if not machine:
        return load_fleet(fleet_path(fleet), env, machine=False)
    from poorwill.engines.kinds import ENGINE_KINDS  # slow to import; most verbs do without
    from poorwill.engines.weights.integrity import weights_fault

    known = {name: kind.options for name, kind in ENGINE_KINDS.items()}
    return load_fleet(fleet_path(fleet), env, engine_options=known, weights_fault=weights_fault)
