"""The state machine of one replica: its table, inputs, effects, the pure step, and the cell around it."""
