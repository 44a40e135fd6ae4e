"""Decisions about models, tasks, attempts and leases, in plain Python."""
