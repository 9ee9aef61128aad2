"""Serve a fleet, look at it while it serves, wake and park its models."""
