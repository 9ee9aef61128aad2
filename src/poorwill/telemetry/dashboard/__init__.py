"""What the admin listener shows of a fleet: the page, its questions, events, and what is answered as JSON."""
