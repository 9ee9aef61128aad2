"""Places for replicas that want to wake: memory of the host, and devices."""
