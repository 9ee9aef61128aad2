"""The seams between rooms, one file a seam. `compose` is where they meet their implementations."""
