"""Puts the gateway together, and starts and stops its parts in order."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

from contracts.errors import PlatformError
from online_gateway.access import Access
from online_gateway.config import OnlineGatewaySettings
from online_gateway.control import Control
from online_gateway.dataplane.plane import DataPlane
from online_gateway.dialects import onnx_models, open_inference, signature_run, vector_predict
from online_gateway.dialects.base import DialectServices
from online_gateway.dialects.routes import Routes
from online_gateway.endpoint_config import GatewayFile
from online_gateway.generations.generations import Generations
from online_gateway.notifications import Notifications
from online_gateway.overview import Overview
from online_gateway.place import Place
from online_gateway.registry import Registry
from online_gateway.repository.repository import Repository
from online_gateway.serving import CallLimits, Serving
from online_gateway.supervisor.child_process import environment_for
from online_gateway.supervisor.local_workers import LocalWorkers, WorkerSettings
from online_gateway.supervisor.support import SupportProcesses
from online_gateway.workers.pools import Pools
from online_gateway.workers.port import WorkerPort
from service_kit.lifecycle import is_loopback
from service_kit.logging import get_logger

log = get_logger(__name__)

Address = tuple[str, int]

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - replaced by what a process of this host can dial


class Wiring:
    """The parts. Make it, mount its ``dialects``, and run the app inside :meth:`running`."""

    def __init__(
        self, settings: OnlineGatewaySettings, file: GatewayFile, address: Address, request_shutdown: Callable[[], None]
    ) -> None:
        """Take a place in the data folder; ``address`` is where the gateway listens.

        Raises
        ------
        OSError, Conflict
            The folder cannot be used.
        """
        data_dir = settings.data_dir.resolve()
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.has_failed = False
        """Whether it ended because a part of it did, which is a bug."""
        self._settings = settings
        self._request_shutdown = request_shutdown
        self._place = Place.take(data_dir)
        self._address = address
        self._registry = Registry(file)
        self._dataplane = DataPlane()
        self._notifications = Notifications()
        self._pools = Pools(self._dataplane, self._notifications)
        self._repository = Repository(data_dir, most_bytes=settings.max_model_bytes)
        self._generations = Generations(
            self._dataplane,
            self._pools,
            self._repository,
            swap_seconds=settings.swap_seconds,
            drain_seconds=settings.call_drain_seconds,
        )
        self._port = WorkerPort(
            settings.worker_token.get_secret_value(),
            self._pools,
            self._dataplane.on_results,
            gateway_id=secrets.token_hex(8),
            silence_seconds=settings.silence_seconds,
            refusal=self._registry.refusal,
        )
        self._local_workers = self._make_local_workers(file)
        self.supports = SupportProcesses(
            file, self._place.support_records, environment_for(file.folder), _from_this_host(address)
        )
        self.overview = Overview(self._registry, self._dataplane, self._pools, self._generations, self._local_workers)
        self._serving = Serving(
            self._registry, self._dataplane, self._generations, self._local_workers, CallLimits.from_settings(settings)
        )
        self._control = self._make_control()
        self.dialects = self._make_dialects(file.run_path)

    def _make_local_workers(self, file: GatewayFile) -> LocalWorkers:
        settings = WorkerSettings(
            gateway=f"unix://{self._place.worker_socket}",
            token_file=self._place.token_file(self._settings.worker_token.get_secret_value()),
            environment=environment_for(file.folder),
            folder=file.folder,
            log_level=self._settings.log_level,
            log_format=self._settings.log_format,
            drain=timedelta(seconds=self._settings.call_drain_seconds),
            silence=timedelta(seconds=self._settings.silence_seconds),
        )
        return LocalWorkers(self._place.worker_records, settings, self._port, self._dataplane)

    def _make_control(self) -> Control:
        return Control(
            self._registry,
            self.overview,
            self._serving,
            self._generations,
            self._repository,
            self._pools,
            self._notifications,
            self._request_shutdown,
        )

    def _make_dialects(self, run_path: str) -> list[Routes]:
        services = DialectServices(
            dataplane=self._dataplane,
            control=self._control,
            access=Access(self._settings, listens_on_loopback=is_loopback(self._address[0])),
            max_call_bytes=self._settings.max_call_bytes,
            max_model_bytes=self._settings.max_model_bytes,
            vector_endpoint=self._settings.vector_endpoint,
            run_path=run_path,
        )
        makers = (open_inference.dialect, signature_run.dialect, onnx_models.dialect, vector_predict.dialect)
        return [make(services) for make in makers]

    def release(self) -> None:
        """Give the place in the data folder back, where it never ran."""
        self._place.release()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve: workers are awaited, started and taken over; at the end they are let go, in order.

        Raises
        ------
        OSError
            The worker port is taken.
        PlatformError
            The data folder cannot be read.
        """
        async with AsyncExitStack() as stack:
            stack.callback(self.release)
            worker_address = await self._open(stack)
            for work in (self._dataplane.run(), self._repository.watch(self._follow)):
                await stack.enter_async_context(self._background(work))
            stack.push_async_callback(self._local_workers.stop)
            await self._local_workers.adopt()
            await self._serving.open_all()
            self._watch(self._local_workers.start())
            stack.push_async_callback(self.supports.stop)
            self._watch(*await self.supports.start())
            log.info("online_gateway_starts", address=self._address, worker_address=worker_address)
            yield

    async def _open(self, stack: AsyncExitStack) -> Address | None:
        settings = self._settings
        await self._repository.sweep()
        for name, kept in (await self._repository.entries()).items():
            self._add_kept(name, kept)
        stack.push_async_callback(self._port.close)
        await self._port.listen_unix(self._place.worker_socket)
        stack.push_async_callback(self._generations.stop)
        stack.push_async_callback(self._control.stop)
        if settings.worker_port is None:
            return None
        return settings.worker_host, await self._port.listen_tcp(settings.worker_host, settings.worker_port)

    def _add_kept(self, name: str, kept: dict[str, Any]) -> None:
        try:
            self._registry.add_kept(name, kept)
        except PlatformError as error:  # the file has it now, or its entry is spoilt: the others are served
            log.warning("uploaded_endpoint_left_out", endpoint=name, reason=error.message)

    async def _follow(self, endpoint: str) -> None:
        try:
            await self._control.follow(endpoint)
        except PlatformError as error:
            log.warning("change_not_followed", endpoint=endpoint, reason=error.message)

    @asynccontextmanager
    async def _background(self, work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Have it run meanwhile; should it fail, which is a bug, the gateway ends, and who runs it starts it again."""
        task = asyncio.create_task(work)
        self._watch(task)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    def _watch(self, *tasks: "asyncio.Task[None]") -> None:
        for task in tasks:
            task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("background_task_failed", exc_info=error)
            self.has_failed = True
            self._request_shutdown()


def _from_this_host(address: Address) -> Address:
    host, port = address
    return _WILDCARDS.get(host, host), port
