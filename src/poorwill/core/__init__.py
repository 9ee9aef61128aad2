"""The words, the state machine, the policies and the arithmetic: pure, synchronous, without I/O.

Nothing in here reads a clock, opens a file, logs or rolls a die; time and chance are arguments. Instants
and durations are integer microseconds (`_us`) so that sums are exact; seconds (`_s`) are only for people.
Money is an integer count of nano-dollars (`_nusd`).
"""
