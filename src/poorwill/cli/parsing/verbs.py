"""The table of verbs, in the order of `poorwill --help`. A verb's module is imported only when it is used."""

import importlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from poorwill.cli.parsing.verb import Verb

GROUPS: Mapping[str, Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "Start": {
            "demo": ("demo.verb", "see the whole product work in a minute, on a model it makes itself"),
            "init": ("setup.init", "write an example fleet.toml, with comments, ready to serve"),
            "check": ("setup.check", "list everything that is wrong with a fleet.toml, with line and hint"),
            "pull": ("setup.pull", 'download the models that a fleet names: path = "hf:ORG/NAME"'),
            "models": ("setup.models", "list the models on this machine's disk, and remove one"),
            "doctor": ("setup.doctor", "prove which tiers work here, install CRIU, look for orphans"),
        },
        "Serve": {
            "serve": ("operate.serve", "serve a fleet: gateway and controller in one process"),
            "status": ("operate.status", "show every replica, who waits, and how long wakes take"),
            "top": ("operate.top", "show the status again and again"),
            "logs": ("operate.logs", "print what a model's engine logged; --follow goes on"),
            "wake": ("operate.wake", "wake a model and wait until it is ready"),
            "park": ("operate.park", "drain a model and park it"),
            "reload": ("operate.reload", "have the fleet that is served follow its changed fleet.toml"),
            "keys": ("accounts.keys", "add, list or revoke API keys; stored as hashes, shown once"),
        },
        "Understand": {
            "bill": ("accounts.bill", "show what the time cost and why, exact to the nano-dollar"),
            "anatomy": ("anatomy.verb", "show where the time of a wake went and what would shorten it"),
            "plan": ("plan.verb", "compare ways to serve: cost, waiting, and which idle time to choose"),
            "bench": ("operate.bench", "measure a warm model, through the gateway and directly"),
        },
        "Maintain": {
            "ledger": ("accounts.ledger", "check, back up, compact or migrate the file that holds the bill"),
            "deploy": ("setup.deploy", "print a systemd unit; copy the program to a server and restart it"),
            "host": ("setup.host", "serve models from this machine for a poorwill elsewhere, through Ray"),
            "guest": ("setup.guest", "build the virtual machine that a model is suspended in"),
            "completion": ("setup.completion", "print a completion script for bash, zsh or fish"),
        },
    }
)
"""Module and one-line help of each verb, by group."""

VERBS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {name: entry for group in GROUPS.values() for name, entry in group.items()}
)


def load_verb(name: str) -> Verb:
    """Import and return one verb of the table."""
    verb = importlib.import_module(f"poorwill.cli.{VERBS[name][0]}").VERB
    assert isinstance(verb, Verb)
    return verb


def every_verb() -> Iterator[tuple[tuple[str, ...], Verb]]:
    """Import and return every verb with its words: `("keys", "add")`."""
    for name in VERBS:
        verb = load_verb(name)
        yield (name,), verb
        yield from (((name, word), below) for word, (_, below) in verb.below.items())
