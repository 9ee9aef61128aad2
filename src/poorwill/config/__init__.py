"""Reads `fleet.toml` into core's settings and reports everything that is wrong with it, line by line.

`core.settings` is the only list of keys: reading, the JSON Schema and docs/configuration.md follow from it. A
new key is one attribute there, with its meaning below it:

    drain_us: OrZero = 60 * SECOND_US
    \"\"\"How long a park waits for requests in flight.\"\"\"

The name gives the unit (`drain_s` in the file, seconds); the type and its marks give what may be written. A
rule about several keys goes into `rules`. Then make the manual: `poorwill check --manual >
docs/configuration.md`.

This package opens no database, binds no port outside `taken_ports`, and starts nothing.
"""

from poorwill.config.load import lines_of, load_fleet
from poorwill.config.values.scalars import MODEL_NAME

__all__ = ["MODEL_NAME", "lines_of", "load_fleet"]
