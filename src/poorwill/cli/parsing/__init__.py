"""The command line itself: the table of verbs, options, and which fleet a verb is about."""
