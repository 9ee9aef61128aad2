"""Reads `fleet.toml` into core's settings and says everything that is wrong with it, line by line.

One table of fields (`model_fields`, `fleet_fields`) is the only list of keys there is: parsing, the JSON
Schema and docs/configuration.md are all made from it. This package opens no database, binds no port
outside `taken_ports`, and starts nothing.
"""

from poorwill.config.hints import advice
from poorwill.config.load import lines_of, load_fleet
from poorwill.config.machine import taken_ports
from poorwill.config.publish import document, schema
from poorwill.config.rules import short_idles
from poorwill.config.sections import MODEL_NAME

__all__ = [
    "MODEL_NAME",
    "advice",
    "document",
    "lines_of",
    "load_fleet",
    "schema",
    "short_idles",
    "taken_ports",
]
