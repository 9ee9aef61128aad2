"""QEMU: the program, its monitor, and guests that run."""
