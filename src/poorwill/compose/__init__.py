"""The composition root: the only room that names concrete classes and introduces them to one another.

`serving` is a fleet that serves; `tiers` finds out which ways of parking work on this machine; `plans`
turns each configured model into a plan for its replica; `bridges` and `rented` are for what is elsewhere:
hosted APIs and rented machines.
"""
