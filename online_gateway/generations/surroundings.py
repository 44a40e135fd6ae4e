"""What the generations of all endpoints share, and what an installation brings."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from online_gateway.background import Background
from online_gateway.dataplane.plane import DataPlane
from online_gateway.generations.loading import Loader
from online_gateway.generations.tending import Places
from online_gateway.repository.repository import Repository, StagedContent
from online_gateway.workers.pools import Pools


@dataclass(frozen=True)
class Surroundings:
    """What the endpoints share."""

    data_plane: DataPlane
    pools: Pools
    repository: Repository
    loader: Loader
    places: Places
    background: Background
    swap_time: timedelta
    """A worker may load for so long."""
    drain_time: timedelta
    """Calls may end for so long on a generation that is served no more."""


@dataclass(frozen=True)
class NewVersion:
    """What is to be installed."""

    staged: StagedContent | None
    label: str
    entry: dict[str, Any] | None
