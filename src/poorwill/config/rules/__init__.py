"""What several keys must satisfy together, and what is allowed but probably not meant. Pure."""
