"""The machines that replicas run on: processes of this one, the guests of virtual ones, and rented ones.

Tiers use them to start, watch and end engines. Nothing here knows how a replica is parked. `files`, which
opens what others left on this machine, is for every room above.
"""
