"""Reads `fleet.toml` into plain values; lists every problem at once, with its line and how to mend it."""
