"""The tier `hibernated`: a rented machine, parked by its cloud."""
