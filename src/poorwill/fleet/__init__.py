"""The only owner of fleet state: feeds inputs to the cells, records, and carries out the effects.

Reading order: `unit` (one replica's cell, processes and waiting requests), `controller` (the loop), `wake`
and `park` (what the effects do), `activator` (the gateway's door), `recovery` (what is found at start),
`view` (what operators see). Nothing here decides when to wake or park: `core` does.
"""
