"""`poorwill anatomy`."""
