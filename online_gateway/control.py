"""All that a dialect may do besides calling: look, install, stop and start. It steers what lies behind it."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from contracts.inference import SwapReport
from contracts.worker_protocol import Notification
from online_gateway.endpoint_config import EngineName
from online_gateway.information import EndpointInfo, MemoryStatus, WorkerInfo
from online_gateway.repository import StagedContent

__all__ = ["Control", "EndpointInfo", "MemoryStatus", "StagedContent", "WorkerInfo"]


class Control:
    """The gateway's controls. Every method belongs to the event loop's thread."""

    server_name: str
    version: str
    default_endpoint: str | None
    """The endpoint of calls that name none, where the configuration says one."""
    pool_echo: str
    """A hidden echo endpoint on the model hosts; its answers' ``worker_id`` shows who answered."""

    def endpoints(self, engine: EngineName | None = None) -> list[EndpointInfo]:
        """Those that can be called, of this engine if one is given, by name; not the hidden ones."""
        raise NotImplementedError

    def endpoint(self, name: str) -> EndpointInfo:
        """The endpoint.

        Raises
        ------
        UnknownEndpoint
            The message names the known ones.
        """
        raise NotImplementedError

    @asynccontextmanager
    async def staging(self) -> AsyncIterator[StagedContent]:
        """``async with control.staging() as staged``: a file to ``await staged.write(chunk)`` into and to install.

        It is removed at the end unless it was installed. It knows its ``size`` and ``sha256``.

        Raises
        ------
        UploadTooLarge, StorageFull
            By ``write``.
        """
        raise NotImplementedError
        yield

    async def install(
        self,
        name: str,
        staged: StagedContent | None,
        *,
        label: str = "",
        description: str | None = None,
        create: EngineName | None = None,
    ) -> SwapReport:
        """Load a new generation on every worker and let it answer from then on; ``create`` makes an unknown endpoint.

        Raises
        ------
        UnknownEndpoint, InvalidRequest
            There is none of this name, or the name cannot be one.
        EndpointNotReady
            No worker is there to try the generation.
        SwapFailed
            A worker refused it; the generation before goes on answering.
        """
        raise NotImplementedError

    async def describe(self, name: str, description: str) -> None:
        """Change the description.

        Raises
        ------
        UnknownEndpoint
        """
        raise NotImplementedError

    async def remove(self, name: str) -> None:
        """Remove an endpoint that an upload made, with its files.

        Raises
        ------
        UnknownEndpoint
        Conflict
            It stands in the configuration file: it is removed there.
        """
        raise NotImplementedError

    async def load(self, name: str) -> None:
        """Serve the current generation (again).

        Raises
        ------
        UnknownEndpoint
        EndpointNotReady
            It is not ready afterwards; the message says why.
        """
        raise NotImplementedError

    async def unload(self, name: str) -> None:
        """Stop serving until :meth:`load`; the workers stay.

        Raises
        ------
        UnknownEndpoint
        """
        raise NotImplementedError

    async def start(self, name: str) -> None:
        """Start its workers (again), also after too many deaths.

        Raises
        ------
        UnknownEndpoint
        """
        raise NotImplementedError

    async def kill(self, name: str) -> None:
        """Stop serving it and end its local workers; an endpoint on a shared pool only stops being served.

        Raises
        ------
        UnknownEndpoint
        """
        raise NotImplementedError

    async def resize(self, name: str, workers: int) -> None:
        """Keep so many local workers from now on.

        Raises
        ------
        UnknownEndpoint, InvalidRequest
        """
        raise NotImplementedError

    def take_notifications(self, name: str | None = None) -> list[Notification]:
        """Those of the endpoint, or of all, since the last call.

        Raises
        ------
        UnknownEndpoint
        """
        raise NotImplementedError

    def add_support_status(self, name: str, status: Mapping[str, Any]) -> None:
        """Keep what a support process posted, until it posts again.

        Raises
        ------
        InvalidRequest
            It is too much.
        """
        raise NotImplementedError

    def support_statuses(self) -> dict[str, Mapping[str, Any]]:
        """The latest of each support process, by name."""
        raise NotImplementedError

    async def memory(self) -> MemoryStatus:
        """Who has how much memory of this machine now."""
        raise NotImplementedError

    def request_shutdown(self) -> None:
        """Begin the orderly stop of everything; returns at once."""
        raise NotImplementedError


Shutdown = Callable[[], None]
