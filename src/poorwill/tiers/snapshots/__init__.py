"""Snapshots on disk, shared by the tiers that keep one: store, manifest, checksums, room."""
