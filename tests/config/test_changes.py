"""What another configuration changes: everything, once, and nothing that is equal in both."""

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from poorwill.config.changes import FOLLOWED_KEYS, fleet_change
from poorwill.config.file_keys import file_tables
from poorwill.core.settings import (
    CloudSettings,
    EngineSettings,
    EngineUrl,
    FleetSettings,
    GatewaySettings,
    HostedSettings,
    ModelSettings,
    ParkSettings,
    RateSettings,
    ReplicaSettings,
)
from poorwill.core.words import ModelName, Tier

CLOUD = CloudSettings(
    provider="hyperstack", machine="1", engine=EngineUrl("10.0.0.1", 8000), key_env="HYPERSTACK_KEY"
)
BRIDGE = HostedSettings(provider="groq", model="m", bridge=True)

names = st.sampled_from([ModelName(name) for name in "abcd"])


@st.composite
def a_model(draw: st.DrawFn, name: ModelName) -> ModelSettings:
    ladder = draw(st.sampled_from([(Tier.COLD,), (Tier.SUSPENDED, Tier.COLD)]))
    return ModelSettings(
        name=name,
        engine=EngineSettings(kind="toy", context=draw(st.sampled_from([1024, 2048]))),
        replica=ReplicaSettings(model=name, park=ParkSettings(ladder=ladder)),
        priority=draw(st.integers(0, 1)),
        hosted=draw(st.sampled_from([None, BRIDGE, replace(BRIDGE, bridge=False)])),
        cloud=draw(st.sampled_from([None, None, None, CLOUD])),
    )


@st.composite
def a_fleet(draw: st.DrawFn) -> FleetSettings:
    chosen = draw(st.lists(names, unique=True))
    return FleetSettings(
        directory=draw(st.sampled_from(["/a", "/b"])),
        exit_us=draw(st.integers(1, 2)),
        models=tuple(draw(a_model(name)) for name in chosen),
        gateway=GatewaySettings(max_events=draw(st.integers(1, 2)), heartbeat_us=draw(st.integers(1, 2))),
        rates=draw(st.sampled_from([(), (RateSettings(active_nusd_h=1),)])),
    )


@given(a_fleet())
def test_nothing_changes_between_equals(fleet: FleetSettings) -> None:
    found = fleet_change(fleet, fleet)
    assert found.settings == fleet
    assert not [*found.added, *found.removed, *found.renewed, *found.adjusted]
    assert not found.changes and not found.needs_restart


@given(a_fleet(), a_fleet())
def test_every_model_is_dealt_with_once(old: FleetSettings, new: FleetSettings) -> None:
    found = fleet_change(old, new)
    before = {model.name: model for model in old.models}
    after = {model.name: model for model in found.settings.models}
    dealt = [model.name for kind in (found.added, found.renewed, found.adjusted) for model in kind]
    assert len(dealt) == len(set(dealt))
    assert {model.name for model in found.added} == after.keys() - before.keys()
    assert set(found.removed) == before.keys() - after.keys()
    for name in after.keys() & before.keys():
        changed = after[name] != before[name] or old.rates != new.rates
        assert (name in dealt) == changed
    assert {model.name for model in found.renewed} == {
        name for name in after.keys() & before.keys() if after[name].engine != before[name].engine
    }
    for kind in (found.added, found.renewed, found.adjusted):
        assert all(after[model.name] is model for model in kind)


@given(a_fleet(), a_fleet())
def test_what_waits_stays_as_it_was(old: FleetSettings, new: FleetSettings) -> None:
    found = fleet_change(old, new)
    assert (found.settings.directory, found.settings.gateway.max_events) == (
        old.directory,
        old.gateway.max_events,
    )
    before = {model.name: model for model in old.models}
    for model in found.settings.models:
        was = before.get(model.name)
        assert model.cloud == (was.cloud if was else None)
    again = fleet_change(found.settings, new)
    assert again.settings == found.settings
    assert not again.changes and again.needs_restart == found.needs_restart


@given(a_fleet(), a_fleet())
def test_all_else_is_as_in_the_new_file(old: FleetSettings, new: FleetSettings) -> None:
    found = fleet_change(old, new)
    if not found.needs_restart:
        assert found.settings == new
    assert found.settings.exit_us == new.exit_us
    assert found.settings.gateway.heartbeat_us == new.gateway.heartbeat_us


def test_followed_keys_exist_and_are_documented() -> None:
    tables = file_tables()
    known = {f"{name}.{key}" for name in ("fleet", "gateway") for key in tables[name].keys.keys}
    assert known >= FOLLOWED_KEYS
    page = (Path(__file__).parents[2] / "docs" / "reload.md").read_text()
    assert [key for key in FOLLOWED_KEYS if f"`{key.partition('.')[2]}`" not in page] == []
