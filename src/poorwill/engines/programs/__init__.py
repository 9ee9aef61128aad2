"""Programs that run in child processes. They import nothing of poorwill and are started by their path."""
