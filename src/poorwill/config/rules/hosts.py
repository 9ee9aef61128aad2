"""What models on other hosts must satisfy."""

from poorwill.config.problems import FileProblems, ModelProblems
from poorwill.config.values.scalars import nearest
from poorwill.core.settings import FleetSettings


def check_hosts(fleet: FleetSettings, found: FileProblems) -> None:
    """Report hosts that nobody knows, and keys that do not fit a model on one."""
    known = list(fleet.hosts.relays) if fleet.hosts is not None else []
    machines = [model.cloud.machine for model in fleet.models if model.cloud is not None]
    for index, rate in enumerate(fleet.rates):
        if rate.host is not None and rate.host not in [*known, *machines]:
            hint = nearest(rate.host, known) or "see [hosts]"
            found.wrong(("rates", index, "host"), f"{rate.host!r} is no host here", hint)
    for model in fleet.models:
        here = ModelProblems(name=model.name, found=found)
        for host in model.hosts:
            if host not in known and not found.is_bad(("hosts",)):
                here.wrong(["hosts"], f"{host!r} is no host here", nearest(host, known) or "see [hosts]")
        if model.hosts and model.away is not None:
            here.wrong(["hosts", "cloud", "url"], f"is on {model.away.named}", "take one of the two out")
        pinned = {name.rpartition(":")[0] for name in model.devices.on} - {""}
        for host in sorted(pinned.difference(model.hosts)) if model.hosts else ():
            here.wrong(["on"], f"{host!r} is none of its hosts", nearest(host, model.hosts))
        if model.hosts and model.devices.gpu_memory_bytes:
            what = "is for this machine, and the model is on other hosts, which give whole devices"
            here.wrong(["gpu_memory"], what, "gpus = 1")
