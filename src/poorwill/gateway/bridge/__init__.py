"""The bridge: requests served by a hosted API while their model wakes."""
