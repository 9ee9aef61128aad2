"""The interfaces between rooms, one file each. `compose` connects them to their implementations."""
