"""The words, the state machine, the policies and the arithmetic: pure, synchronous, without I/O.

Nothing in here reads a clock, opens a file, logs or rolls a die; time and chance are arguments. Instants
and durations are integer microseconds (`_us`) so that sums are exact; seconds (`_s`) appear only where
people read and write them. Money is an integer count of nano-dollars (`_nusd`).
"""
