"""Request traces: read, drawn, and how long each request is served."""
