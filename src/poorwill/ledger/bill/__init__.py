"""The bill and everything that explains it: read-only queries over spans and rates."""
