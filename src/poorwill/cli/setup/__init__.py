"""Make a fleet, check it, and see what this machine can do."""
