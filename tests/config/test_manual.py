"""The manual and the schema follow from the keys, and the schema agrees with the reader."""

import json
import re
import tomllib
from collections.abc import Mapping
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poorwill.compose.deployment.first_fleet import example
from poorwill.config.file_keys import file_tables
from poorwill.config.manual import document, schema
from poorwill.core.settings import GatewaySettings

from .conftest import TOY, Write, problems_of
from .test_load import FULL

ROOT = Path(__file__).parents[2]


def test_the_committed_manual_is_current() -> None:
    committed = (ROOT / "docs" / "configuration.md").read_text()
    assert committed == document(), "run: poorwill check --manual > docs/configuration.md"


def test_the_manual_names_every_key() -> None:
    text = document()
    for table in file_tables().values():
        for key in table.keys.keys.values():
            assert f"| `{key.name}` |" in text
            assert len(key.meaning) > 10 and key.meaning.endswith(".")
    assert f"`{GatewaySettings().heartbeat_us // 1_000_000}`" in text


def fits(value: object, rule: Mapping[str, Any]) -> bool:
    """A validator for the part of JSON Schema that is used here. TOML dates count as text."""
    if isinstance(value, date | datetime | time):
        value = value.isoformat()
    if "anyOf" in rule:
        return any(fits(value, one) for one in rule["anyOf"])
    if "enum" in rule:
        return value in rule["enum"]
    kinds = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
    return any(fits_kind(value, kind, rule) for kind in kinds)


def fits_kind(value: object, kind: str, rule: Mapping[str, Any]) -> bool:
    if kind == "boolean":
        return isinstance(value, bool)
    if kind in ("integer", "number"):
        allowed = int if kind == "integer" else int | float
        return (
            isinstance(value, allowed)
            and not isinstance(value, bool)
            and rule.get("minimum", value) <= value <= rule.get("maximum", value)
            and value > rule.get("exclusiveMinimum", value - 1)
        )
    if kind == "string":
        return (
            isinstance(value, str)
            and re.search(rule.get("pattern", ""), value) is not None
            and len(value) >= rule.get("minLength", 0)
        )
    if kind == "array":
        return (
            isinstance(value, list)
            and len(value) >= rule.get("minItems", 0)
            and all(fits(item, rule["items"]) for item in value)
        )
    assert kind == "object"
    if not isinstance(value, dict) or not set(rule.get("required", ())) <= set(value):
        return False
    known, more = rule.get("properties", {}), rule["additionalProperties"]
    return all(
        fits(item, known[key]) if key in known else bool(more) and fits(item, more)
        for key, item in value.items()
    )


def test_the_schema_describes_every_table() -> None:
    published = json.loads(json.dumps(schema()))
    assert published["$schema"].startswith("http://json-schema.org/draft-07")
    assert set(published["properties"]) == set(file_tables())


@pytest.mark.parametrize("text", [TOY, FULL, example(name="m", path="m.gguf", own=True)])
def test_the_schema_accepts_good_files(text: str) -> None:
    assert fits(tomllib.loads(text), schema())


@pytest.mark.parametrize(
    "text",
    [
        "",
        TOY + "prot = 1",
        TOY + "port = -1",
        TOY + "wake_budget_s = 'soon'",
        TOY + "wake_budget_s = 0",
        TOY + "ladder = ['frosen']",
        TOY + "policy = 'none'",
        TOY + "policy = {name = 'none'}",
        TOY + "memory = '4 XB'",
        TOY + "floor = 'always'",
        TOY + "[gateway]\nlisten = 8080",
        TOY + "[[rates]]\nactive_usd_h = '1 €'",
        TOY + "[rates]\nactive_usd_h = 1",
        TOY + "[fleets]",
    ],
)
def test_schema_and_reader_refuse_alike(text: str, write: Write) -> None:
    assert problems_of(write(text))
    assert not fits(tomllib.loads(text), schema())


VALUES = st.sampled_from(
    [
        "0", "1", "-1", "0.5", "true", "false", '""', '"x"', '"cold"', '"fixed"', '"toy"', '"4 MiB"',
        '"1.5"', "[]", '["cold"]', '["x"]', "{}", "{cold = 1}", '{name = "break-even"}', "1e300",
        "2026-01-01", '"2026-01-01"', '"127.0.0.1:1"', '"/x"', "[{}]", '[{from="1:00", to="2:00"}]',
    ]
)  # fmt: skip
KEYS = [
    (table.header, name)
    for table in file_tables().values()
    if table.name != "models"
    for name in table.keys.keys
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400, deadline=None)
@given(key=st.sampled_from(KEYS), value=VALUES)
def test_the_schema_accepts_what_is_read(write: Write, key: tuple[str, str], value: str) -> None:
    header, name = key
    text = f"{header}\n{name} = {value}\n{TOY}"
    found = problems_of(write(text), x="set")
    about_values = [one for one in found if "is missing" not in one and "less than" not in one]
    if not about_values:
        assert fits(tomllib.loads(text), schema()), text
