"""Backups of a whole platform, while it runs, and restoring them elsewhere or in its place."""
