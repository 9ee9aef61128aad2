"""`poorwill demo`."""
