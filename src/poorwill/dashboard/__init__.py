"""The page the admin listener serves: no build step, no framework."""
