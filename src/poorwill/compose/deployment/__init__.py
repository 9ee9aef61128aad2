"""Setting a machine up: the systemd unit, a push to a server, a CRIU that works there."""
