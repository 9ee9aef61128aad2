"""The phases of a start or wake: measured, compared, predicted, and what would shorten them. Pure."""
