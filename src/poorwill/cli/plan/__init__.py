"""`poorwill plan`."""
