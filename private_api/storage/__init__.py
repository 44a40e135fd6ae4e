"""Adapters to the database, the files and the broker; no decisions."""
