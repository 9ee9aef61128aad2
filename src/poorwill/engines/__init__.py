"""What is particular to each engine: launch flags, readiness, sleep calls, log lines to phases."""
