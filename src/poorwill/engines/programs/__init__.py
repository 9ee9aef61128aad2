"""Programs that run in child processes, each started by `python -m`. They import nothing else of poorwill."""
