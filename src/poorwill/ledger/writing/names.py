"""Names that come again and again are kept once and named by number."""

import sqlite3


def text_number(db: sqlite3.Connection, text: str) -> int:
    """Return the number of a text, giving it one if it has none."""
    row = db.execute("SELECT id FROM texts WHERE text = ?", (text,)).fetchone()
    if row is None:
        row = db.execute("INSERT INTO texts (text) VALUES (?) RETURNING id", (text,)).fetchone()
    return int(row[0])
