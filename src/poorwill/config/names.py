"""The names that clients use, as the fleet's own."""

from collections.abc import Sequence

from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.settings import ModelSettings


def own_names(names: Sequence[str], models: Sequence[ModelSettings]) -> tuple[str, ...]:
    """Return the models that names stand for, each once. Raises RequestFault for a name that nothing has."""
    own = {name: str(model.name) for model in models for name in model.names}
    for name in names:
        if name not in own:
            hint = f"it has {', '.join(own)}; add it to fleet.toml first"
            raise RequestFault(ErrorCode.INVALID_REQUEST, f"there is no model {name!r}", hint=hint)
    return tuple(dict.fromkeys(own[name] for name in names))
