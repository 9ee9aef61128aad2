"""Opens files that others may have made, names files after models, and knows what another user may open.

Nothing here follows a trap: only regular files are opened, poorwill's own files and directories must belong
to its user alone, every reading has a bound, and a bad file is an `OSError` that says what is wrong with it.
Every room above the ground floor may use it.
"""
