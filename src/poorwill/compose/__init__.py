"""The composition root: makes the parts of every other room and puts them together.

`serving` is a fleet that serves; `drivers/` finds out which tiers work on this machine or at a cloud, and
makes their drivers; `plans` turns each configured model into a plan for its replica; `bridges` makes the
hosted APIs.
"""
