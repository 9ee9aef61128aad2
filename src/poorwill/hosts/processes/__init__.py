"""Engine processes, shared by all tiers: starting, finding, watching and ending them."""
