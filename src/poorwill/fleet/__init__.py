"""The only owner of fleet state: takes inputs, calls `core.machine.step`, records, carries out the effects.

Reading order: `unit` (one replica's moving parts), `controller` (the loop), `wake` and `park` (what the
effects do), `activator` (the gateway's door), `recovery` (what is found at start), `view` (what operators
see). Nothing here decides when to wake or park: that is `core`.
"""
