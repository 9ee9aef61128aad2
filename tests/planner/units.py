"""`plan --json` in the units that its tests are written in: seconds and dollars."""

import json


def read(text: str) -> dict:
    """Return the document with `_us` as `_s` and `_nusd` as `_usd`."""
    return in_units(json.loads(text))


def in_units(value):
    if isinstance(value, list):
        return [in_units(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for name, one in value.items():
        if name.endswith("_us"):
            found[name[:-3] + "_s"] = scaled(one, 1e6)
        elif "nusd" in name:
            found[name.replace("nusd", "usd")] = scaled(one, 1e9)
        else:
            found[name] = in_units(one)
    return found


def scaled(value, by: float):
    if isinstance(value, dict):
        return {name: scaled(one, by) for name, one in value.items()}
    if isinstance(value, list):
        return [scaled(one, by) for one in value]
    return None if value is None else value / by
