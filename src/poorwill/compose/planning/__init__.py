"""What a fleet knows of itself, for the planner."""
