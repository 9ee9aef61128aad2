"""What the rest of poorwill asks of the past: demand, wakes, recovery, money spent so far."""
