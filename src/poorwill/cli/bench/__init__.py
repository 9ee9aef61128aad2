"""`poorwill bench`."""
