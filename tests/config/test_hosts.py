"""The keys of other hosts, and what models on them may say."""

import pytest

from poorwill.config.changes import fleet_change
from poorwill.core.settings import Address

from .conftest import Write, problems_of, read

HOSTS = """\
[hosts]
head = "10.0.0.1:6379"
relays = { gpu-1 = "10.0.0.11:7443" }
"""
BIG = """\
[models.big]
path = "/not/here/big.gguf"
hosts = ["gpu-1"]
"""


def test_hosts_and_their_models(write: Write):
    path = write(HOSTS + BIG)
    fleet = read(path)
    assert fleet.hosts is not None and fleet.hosts.head == Address("10.0.0.1", 6379)
    assert fleet.hosts.relays == {"gpu-1": Address("10.0.0.11", 7443)}
    assert fleet.hosts.key == str(path.parent / "hosts.pem")
    assert fleet.models[0].hosts == ("gpu-1",)


@pytest.mark.parametrize("pins", ["", 'on = ["gpu-1:0", "1", "GPU-8932f937"]\napart = ["small"]\n'])
def test_devices_there_are_not_asked_for_here(write: Write, pins: str):
    small = BIG.replace("big", "small")
    assert not read(write(HOSTS + BIG + "gpus = 2\n" + pins + small)).gives_devices


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BIG, "'gpu-1' is no host here"),
        (HOSTS + BIG.replace("gpu-1", "gpu-2"), "did you mean"),
        (HOSTS + BIG + '[[rates]]\nactive_usd_h = "1"\nhost = "gpu-2"\n', "rates"),
        (HOSTS + BIG + 'gpus = 1\non = ["gpu-2:0"]\n', "'gpu-2' is none of its hosts"),
        (HOSTS + BIG + "gpu_memory = '20 GiB'\n", "give whole devices"),
    ],
)
def test_what_hosts_do_not_bear(write: Write, text: str, problem: str):
    assert problem in "\n".join(problems_of(write(text)))


def test_changes_of_hosts_wait_for_a_restart(write: Write):
    old = read(write(HOSTS + BIG))
    new = read(write(HOSTS.replace("7443", "7444") + BIG + "priority = 1\n"))
    change = fleet_change(old, new)
    assert set(change.needs_restart) == {"hosts", "models.big.hosts"}
    assert (change.settings.hosts, change.settings.models) == (old.hosts, old.models)
