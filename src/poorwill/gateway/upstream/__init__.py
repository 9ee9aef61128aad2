"""The engine's side of the gateway: pooled connections, and what passes through them."""
