"""Readers of the values of `fleet.toml`, each of which also describes and shows its values."""
