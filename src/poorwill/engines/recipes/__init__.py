"""How each kind of engine is started: its program, flags, variables and readiness path."""
