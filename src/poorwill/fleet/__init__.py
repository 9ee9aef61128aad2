"""The only owner of fleet state: takes inputs, calls `core.step`, records, carries out the effects."""
