"""Processes that the gateway starts and keeps alive: local workers and support processes."""
