-- How many transactions that somebody waited for were committed (acknowledged.py). What `checksums` holds is in
-- checksums.py, which also makes its table and triggers.
ALTER TABLE alive ADD COLUMN acknowledged INTEGER NOT NULL DEFAULT 0;
