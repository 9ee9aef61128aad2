"""What the ledger holds: the bill, the keys it is split by, the file itself."""
