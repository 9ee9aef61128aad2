"""What engines write into their logs: one file per dialect, each a pure function from a line to facts."""
