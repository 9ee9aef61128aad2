"""Models by name: found in the caches of this machine, or downloaded from the Hugging Face hub."""
