"""Starts and wakes for people and for JSON."""
