"""The state machine of one replica: its table, its inputs and effects, and the pure step."""
