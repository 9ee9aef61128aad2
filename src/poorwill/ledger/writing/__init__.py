"""The one writer: entries to rows, in batches, answered after COMMIT."""
