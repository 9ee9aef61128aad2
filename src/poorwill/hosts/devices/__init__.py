"""The accelerators of this machine: which there are, what they hold, and what is wrong with them."""
