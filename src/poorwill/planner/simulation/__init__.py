"""Replays a trace through production's cell and policies on a virtual clock; and the yardsticks."""
