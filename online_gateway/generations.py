"""Which generation of each endpoint is served, and how the next one takes its place."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contracts.inference import SwapReport, TensorSpec
from online_gateway.dataplane import DataPlane
from online_gateway.pools import Pools
from online_gateway.repository import Repository, StagedContent
from service_kit.deadline import Deadline


@dataclass(frozen=True)
class Recipe:
    """What every generation of an endpoint is made with."""

    endpoint: str
    pool: str
    engine: str
    config: dict[str, Any]
    """As ``Load.config``."""
    needs_content: bool = False
    """Whether there is no generation before the first file was installed."""
    module: Path | None = None
    """The Python file with the endpoint's class: another text makes another digest."""
    content: Path | None = None
    """The file of the generation that is there before any was installed."""


@dataclass(frozen=True)
class GenerationsState:
    """One endpoint's generations as they are now."""

    accepted: int | None
    """The newest accepted one; None: none yet."""
    serving: int | None
    """The one that calls go to; None before a worker has acknowledged it, and while it is unloaded."""
    generations: list[int]
    """Those that calls may name."""
    label: str
    version: str | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    is_unloaded: bool
    reason: str
    """What keeps workers from holding the accepted generation, in a sentence; '' where nothing does."""
    holders: dict[str, int] = field(default_factory=dict)
    """The newest generation that each worker holds, by worker id."""


class Generations:
    """The generations of all endpoints. Every method belongs to the event loop's thread."""

    def __init__(
        self,
        data_plane: DataPlane,
        pools: Pools,
        repository: Repository,
        *,
        swap_seconds: float = 300.0,
        drain_seconds: float = 30.0,
    ) -> None: ...

    async def open(self, recipe: Recipe) -> None:
        """Serve an endpoint: its accepted generation, or without one the first, which the recipe alone describes.

        Call it after ``DataPlane.open_endpoint``. Serving begins when the first worker of the pool has loaded it.
        Repeated with another recipe, it takes that for the next generations.
        """
        raise NotImplementedError

    async def close(self, endpoint: str) -> None:
        """Stop serving it and let every worker unload it; files stay. Call it before ``DataPlane.close_endpoint``."""
        raise NotImplementedError

    async def install(
        self,
        endpoint: str,
        staged: StagedContent | None,
        *,
        label: str = "",
        config: dict[str, Any] | None = None,
        entry: dict[str, Any] | None = None,
    ) -> SwapReport:
        """Load a new generation on every member of the pool, and once all have acknowledged it serve it.

        ``config`` replaces the recipe's from then on; ``entry`` is kept with an endpoint that an upload makes, see
        :meth:`Repository.entries`.

        Raises
        ------
        UnknownEndpoint, EndpointNotReady
            There is no such endpoint; no worker is there to try it.
        SwapFailed
            A worker did not acknowledge it; the generation before goes on serving.
        StorageFull, Unavailable
            The disk; likewise.
        """
        raise NotImplementedError

    async def unload(self, endpoint: str) -> None:
        """Stop serving the endpoint until :meth:`load`, or a restart of the gateway; its workers let go of it."""
        raise NotImplementedError

    async def load(self, endpoint: str) -> None:
        """Serve the accepted generation (again); returns when the first worker serves it.

        Raises
        ------
        UnknownEndpoint, EndpointNotReady
            Nothing is installed, or no worker is there.
        SwapFailed
            No worker could load it.
        """
        raise NotImplementedError

    async def follow(self, endpoint: str) -> None:
        """Serve what another gateway has accepted in the same folder, if it is newer than what is served here."""
        raise NotImplementedError

    async def ready(self, endpoint: str, deadline: Deadline) -> bool:
        """Wait until a worker serves it; whether one does."""
        raise NotImplementedError

    def state(self, endpoint: str) -> GenerationsState:
        """How it stands.

        Raises
        ------
        UnknownEndpoint
        """
        raise NotImplementedError

    async def stop(self) -> None:
        """End whatever is being loaded or drained; what is served stays."""
        raise NotImplementedError
