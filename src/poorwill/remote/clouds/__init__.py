"""Rented machines: their clouds, how each is brought to run or to hibernate, and the engines on them."""
