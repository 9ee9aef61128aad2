"""What the gateway decides by: the limits of keys, and when a silent engine is suspected."""
