"""What is installed."""

from collections.abc import Collection
from importlib.metadata import distributions


def get_packages(monitored_packages: Collection[str] | None = None) -> list[str]:
    """Name and version of each installed package, in columns, by name; only the monitored ones where some are named."""
    wanted = {name.lower() for name in monitored_packages or ()}
    versions = {str(found.metadata["Name"]).lower(): found.version for found in distributions()}
    width = max(map(len, versions), default=0) + 1
    return sorted(f"{name:<{width}}{version}" for name, version in versions.items() if not wanted or name in wanted)
