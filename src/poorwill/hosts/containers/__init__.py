"""Engines in containers: what poorwill adds to a run line, and what ends the container."""
