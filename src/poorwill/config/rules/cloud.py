"""What the keys of models on rented machines must satisfy together."""

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from poorwill.config.problems import FileProblems, ModelProblems
from poorwill.config.values.addresses import in_the_clear, is_public
from poorwill.config.values.scalars import in_seconds
from poorwill.core.problems import Problem
from poorwill.core.settings import Address, CloudSettings, FleetSettings, ModelSettings
from poorwill.core.words import SECOND_US, Tier

TIERS = (Tier.HIBERNATED, Tier.COLD)
SDKS: Mapping[str, str] = MappingProxyType({"aws": "boto3", "gcp": "google.cloud.compute_v1"})
"""The packages that clouds are asked through, if they have one; each is the extra of the cloud's name."""

IDS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "hyperstack": (r"[^/]*", "is a number, without anything before it", ""),
        "scaleway": (r"[^/]+/[^/]+", "has no zone", 'write it before the id: "fr-par-2/11111111-..."'),
        "aws": (r"[a-z0-9-]+/i-[0-9a-f]+", "is not REGION/ID", 'e.g. "eu-central-1/i-0123456789abcdef0"'),
        "gcp": (r"[^/]+/[^/]+/[^/]+", "is not PROJECT/ZONE/NAME", 'e.g. "my-project/europe-west4-a/gpu-1"'),
    }
)
"""The form of a machine's id at each provider, and what to say and advise about another one."""

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
    _check_provider(model.cloud, found)


def _check_provider(cloud: CloudSettings, found: ModelProblems) -> None:
    """Report an id, an address or a key that its provider does not have."""
    provider = cloud.provider
    form, what, hint = IDS.get(provider, (r".*", "", ""))
    if cloud.machine and not re.fullmatch(form, cloud.machine):
        found.wrong(["cloud.id", "cloud.provider"], what, hint)
    if provider in SDKS and cloud.key_env:
        hint = "take it out; docs/hibernated.md says where its SDK looks for credentials"
        found.wrong(["cloud.key_env", "cloud.provider"], f"is not for {provider}", hint)
    elif provider in IDS and provider not in SDKS:
        if not cloud.key_env:
            found.wrong(["cloud.key_env", "cloud"], "is missing")
        if cloud.engine.host.startswith("{"):
            what = f"{cloud.engine.host} is not known of machines at {provider}"
            found.wrong(["cloud.url", "cloud.provider"], what, "write the machine's address")


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
            if what.startswith("{"):
                continue
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
    for model in fleet.models:
        engine = model.away.engine if model.away is not None else None
        if engine is not None and is_public(engine.host) and not engine.secure:
            what = f"requests and answers go unencrypted to {engine.host}, open to whoever reaches it"
            hint = "a private network, WireGuard or ssh -L between, and a firewall on the machine"
            where = f"models.{model.name}.{'cloud.' if model.cloud else ''}url"
            yield Problem(where=where, what=what, hint=hint)
    if rented and fleet.on_exit == "park":
        yield from _slow("fleet.exit_s", fleet.exit_us)


def _slow(where: str, limit_us: int) -> Iterator[Problem]:
    if limit_us < ENOUGH_US:
        what = f"{in_seconds(limit_us)} is short for a hibernation, which takes minutes"
        hint = "600 or more; cut short, the cloud goes on with it, and the ledger learns of it late"
        yield Problem(where=where, what=what, hint=hint)
