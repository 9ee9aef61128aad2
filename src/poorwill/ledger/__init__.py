"""SQLite in WAL mode: every second of every replica has one cause, and the bill is a query."""
