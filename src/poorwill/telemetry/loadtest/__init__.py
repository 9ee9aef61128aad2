"""The load generator of `poorwill bench`: clients, closed loops of them, and what they measured."""
