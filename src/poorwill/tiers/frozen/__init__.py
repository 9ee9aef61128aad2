"""The tier `frozen`: the engine's process image on disk, by CRIU."""
