"""The composition root: makes the parts of every other room and puts them together.

`serving` is a fleet that serves; `tiers` finds out which ways of parking work on this machine; `plans`
turns each configured model into a plan for its replica; `bridges` and `rented` are for what is elsewhere:
hosted APIs and rented machines.
"""
