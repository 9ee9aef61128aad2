"""Orphans: what exists on the machine and nobody owns, and what is owned and does not exist."""
