"""The demo's fleet: its model and configuration, its client, and what it reports."""
