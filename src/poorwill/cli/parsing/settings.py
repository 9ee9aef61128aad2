"""A fleet's settings and its models, read from its configuration."""

from collections.abc import Mapping

from poorwill.cli.parsing.fleet import fleet_path
from poorwill.config import load_fleet
from poorwill.core.errors import ErrorCode, RequestFault, unknown_model
from poorwill.core.settings import FleetSettings, ModelSettings


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


def model_of(fleet: FleetSettings, name: str | None) -> ModelSettings:
    """Return the model of a name, or a fleet's only one. Raises RequestFault."""
    known = [model.name for model in fleet.models]
    if name is None and len(known) > 1:
        what = f"the fleet has several models; name one of {', '.join(known)}"
        raise RequestFault(ErrorCode.MODEL_NOT_FOUND, what)
    found = [model for model in fleet.models if name in (None, model.name)]
    if not found:
        raise unknown_model(name or "", known)
    return found[0]
