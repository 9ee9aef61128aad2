"""Guests: the directory that a virtual machine boots from, and how it is built."""
