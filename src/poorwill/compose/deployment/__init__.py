"""Puts the program on a server: the systemd unit, and the push of a new version."""
