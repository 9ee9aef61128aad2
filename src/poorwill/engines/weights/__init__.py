"""Model files: reading their headers, checking them, making small ones."""
