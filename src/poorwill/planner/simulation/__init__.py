"""Replays a trace through production's policies on a virtual clock, and the yardsticks beside them."""
