"""What is measured of engines and this machine, and what is expected from it."""
