"""What a fleet is configured to do, as plain values, and the only list of the keys of `fleet.toml`.

Each attribute is a key. Name, type and default are its own; the text below it is its meaning, which the
manual and the JSON Schema print; `notation` has the marks for what is left. `*_us` are microseconds, `*_nusd`
nano-dollars. `poorwill.config` makes these objects from TOML; nobody else does but tests.
"""

from poorwill.core.settings.addresses import Address, EngineUrl
from poorwill.core.settings.devices import DeviceNeed, DeviceSettings
from poorwill.core.settings.fleet import (
    FleetSettings,
    GatewaySettings,
    HostsSettings,
    RateSettings,
    SpendSettings,
    StatementSettings,
)
from poorwill.core.settings.model import (
    LLAMACPP_SLOTS,
    CloudSettings,
    EngineElsewhere,
    EngineName,
    EngineSettings,
    FloorSettings,
    FloorWindow,
    HostedSettings,
    ModelSettings,
    OptionKind,
    OptionKinds,
    PolicyName,
    PolicySettings,
    ReplicasSettings,
)
from poorwill.core.settings.replica import HoldSettings, ParkSettings, ReplicaSettings, WakeSettings

__all__ = [
    "LLAMACPP_SLOTS",
    "Address",
    "CloudSettings",
    "DeviceNeed",
    "DeviceSettings",
    "EngineElsewhere",
    "EngineName",
    "EngineSettings",
    "EngineUrl",
    "FleetSettings",
    "FloorSettings",
    "FloorWindow",
    "GatewaySettings",
    "HoldSettings",
    "HostedSettings",
    "HostsSettings",
    "ModelSettings",
    "OptionKind",
    "OptionKinds",
    "ParkSettings",
    "PolicyName",
    "PolicySettings",
    "RateSettings",
    "ReplicaSettings",
    "ReplicasSettings",
    "SpendSettings",
    "StatementSettings",
    "WakeSettings",
]
