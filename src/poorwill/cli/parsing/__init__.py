"""The command line itself: the table of verbs, typed options, and the fleet a verb is about."""
