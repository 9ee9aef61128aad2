"""Replays a trace through the production policy on a virtual clock; prices and draws the outcome."""
