"""The version of this software, for processes that run from source folders and not from an installed package."""

VERSION = "0.1.0"
"""As in pyproject.toml; a test holds them equal."""
