"""`poorwill deploy`."""
