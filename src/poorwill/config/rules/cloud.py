"""What the keys of models on rented machines must satisfy together."""

from collections.abc import Iterator
from ipaddress import ip_address

from poorwill.config.problems import FileProblems, ModelProblems
from poorwill.config.values.addresses import in_the_clear
from poorwill.config.values.scalars import in_seconds
from poorwill.core.problems import Problem
from poorwill.core.settings import Address, FleetSettings, ModelSettings
from poorwill.core.words import SECOND_US, Tier

TIERS = (Tier.HIBERNATED, Tier.COLD)
STARTING_KEYS = ("path", "command", "stop_command", "args", "env", "options", "port")
"""Keys about starting an engine; a rented machine starts its engine itself."""

ENOUGH_US = 600 * SECOND_US
"""A hibernation takes minutes; clouds publish no figures."""


def check_cloud(model: ModelSettings, found: ModelProblems) -> None:
    """Report keys that do not fit a model on a rented machine."""
    if model.cloud is None:
        return
    wrong = [tier for tier in model.replica.park.ladder if tier not in TIERS]
    if wrong:
        found.wrong(
            ["ladder", "cloud"],
            f"{' and '.join(wrong)} cannot be done on a rented machine",
            f'write ladder = ["{TIERS[0]}", "{TIERS[1]}"]',
        )
    if in_the_clear(model.cloud.api):
        found.wrong(["cloud.api"], "would send the API key in the clear", "use https")
    zoned = "/" in model.cloud.machine
    if model.cloud.provider == "scaleway" and model.cloud.machine and not zoned:
        hint = 'write it before the id: "fr-par-2/11111111-..."'
        found.wrong(["cloud.id", "cloud.provider"], "has no zone", hint)
    elif model.cloud.provider == "hyperstack" and zoned:
        found.wrong(["cloud.id", "cloud.provider"], "is a number, without anything before it")
    for key in STARTING_KEYS:
        if found.found.lines.has(("models", found.name, key)):
            what = "is not for a model on a rented machine"
            found.wrong([key], what, "the machine starts its engine itself")


def check_clouds(fleet: FleetSettings, found: FileProblems) -> None:
    """Report machines and addresses that two models claim."""
    taken: dict[tuple[str, ...], str] = {}
    for model in fleet.models:
        cloud = model.cloud
        if cloud is None or found.is_bad(("models", model.name, "cloud")):
            continue
        here = ModelProblems(name=model.name, found=found)
        where = str(Address(cloud.engine.host, cloud.engine.port))  # connections are kept by these
        for key, what in (("id", cloud.named), ("url", where)):
            other = taken.setdefault((key, what), model.name)
            if other != model.name:
                hint = "one machine holds one replica"
                here.wrong([f"cloud.{key}"], f"{what} belongs to model {other} already", hint)


def cloud_advice(fleet: FleetSettings) -> Iterator[Problem]:
    """Return warnings about models on rented machines, or with a ladder that needs one."""
    rented = [model for model in fleet.models if model.cloud is not None]
    for model in fleet.models:
        if model.cloud is None and Tier.HIBERNATED in model.replica.park.ladder:
            yield Problem(
                where=f"models.{model.name}.ladder",
                what="hibernated is skipped: the model is on no rented machine",
                hint=f"name one with [models.{model.name}.cloud]; docs/hibernated.md",
            )
    for model in rented:
        yield from _slow(f"models.{model.name}.park_limit_s", model.replica.park.limit_us)
        assert model.cloud is not None
        if _public(model.cloud.engine.host) and not model.cloud.engine.secure:
            host = model.cloud.engine.host
            what = f"requests and answers go unencrypted to {host}, open to whoever reaches it"
            hint = "a private network, WireGuard or ssh -L between, and a firewall on the machine"
            yield Problem(where=f"models.{model.name}.cloud.url", what=what, hint=hint)
    if rented and fleet.on_exit == "park":
        yield from _slow("fleet.exit_s", fleet.exit_us)


def _slow(where: str, limit_us: int) -> Iterator[Problem]:
    if limit_us < ENOUGH_US:
        what = f"{in_seconds(limit_us)} is short for a hibernation, which takes minutes"
        hint = "600 or more; cut short, the cloud goes on with it, and the ledger learns of it late"
        yield Problem(where=where, what=what, hint=hint)


def _public(host: str) -> bool:
    """Return whether an address is reached over the Internet; unknown for a name, so False."""
    try:
        return ip_address(host).is_global
    except ValueError:
        return False
