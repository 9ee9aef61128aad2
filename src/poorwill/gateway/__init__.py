"""HTTP in and out: the inference listener (the warm path)."""
