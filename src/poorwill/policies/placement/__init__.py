"""Where a replica goes, and which idle ones give way to it: pure, busy-safe, without thrash.

`victims` chooses by worth per byte within one memory; `places` fits replicas onto devices.
"""
