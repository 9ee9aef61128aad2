"""The verb table: which module holds which verb. A verb's module is imported only when it is used."""

import importlib
from collections.abc import Mapping
from types import MappingProxyType

from poorwill.cli.parsing.verb import Verb

VERBS: Mapping[str, str] = MappingProxyType(
    {
        "demo": "poorwill.cli.demo.verb",
        "init": "poorwill.cli.init",
        "check": "poorwill.cli.check",
        "serve": "poorwill.cli.serve",
        "status": "poorwill.cli.status",
        "wake": "poorwill.cli.wake",
        "park": "poorwill.cli.park",
        "bill": "poorwill.cli.bill",
        "keys": "poorwill.cli.keys",
        "ledger": "poorwill.cli.ledger",
        "anatomy": "poorwill.cli.anatomy.verb",
        "plan": "poorwill.cli.plan.verb",
        "bench": "poorwill.cli.bench.verb",
        "doctor": "poorwill.cli.doctor",
        "deploy": "poorwill.cli.deploy.verb",
        "guest": "poorwill.cli.guest",
        "completion": "poorwill.cli.completion",
    }
)
"""In the order of `poorwill --help`."""


def load_verb(name: str) -> Verb:
    """Import and return one verb of the table."""
    verb = importlib.import_module(VERBS[name]).VERB
    assert isinstance(verb, Verb)
    return verb
