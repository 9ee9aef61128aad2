"""Reads what other servers are configured with, and writes it as a `fleet.toml`: nothing is run."""
