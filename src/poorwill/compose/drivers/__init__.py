"""The drivers of one fleet, by model and tier, their snapshots, their trials, and what they own."""
