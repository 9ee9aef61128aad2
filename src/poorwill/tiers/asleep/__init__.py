"""The tier `asleep`: the engine's own sleep."""
