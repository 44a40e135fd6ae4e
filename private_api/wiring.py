"""Which object gets which: the one place that knows every class of this service, and starts and stops them."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta

from contracts.errors import InvalidRequest, Unavailable
from contracts.tasks import PlatformInfo
from private_api.config import PrivateApiSettings
from private_api.handlers.services import Bounds, Services
from private_api.services.attempts import Attempts
from private_api.services.leases import Leases
from private_api.services.limits import LimitPolicy
from private_api.services.models import Models
from private_api.services.offers import Offers
from private_api.services.presence import Presence
from private_api.services.publisher import Publisher
from private_api.services.retention import Retention
from private_api.services.status import StatusReader
from private_api.services.tasks import Moves, Tasks
from private_api.services.wakeups import Wakeups
from private_api.storage.database import Database
from private_api.storage.files import BlobStore, FolderLock
from private_api.storage.migrate import migrate
from private_api.storage.outbox import Outbox
from private_api.storage.platform import installation_id, note_software
from private_api.storage.queue import RabbitPublisher
from private_api.storage.workspace import clear_leftovers
from service_kit.backoff import Backoff
from service_kit.deadline import Deadline
from service_kit.logging import get_logger

log = get_logger(__name__)

_DATABASE_WITHIN = timedelta(seconds=60)
_BROKER_OK = "ok"


class Wiring:
    """The service, opened: database migrated, folder locked, nothing running yet."""

    def __init__(self, settings: PrivateApiSettings) -> None:
        """Open what the service owns; waits for a database that is away, within a minute.

        Raises
        ------
        Conflict
            Another process owns DATA_DIR, or the database is newer than this code.
        Unavailable, InvalidRequest
            The database or the folder cannot be used, or an address is wrong.
        """
        with ExitStack() as opened:
            lock = _lock(settings)
            opened.callback(lock.release)
            self.files = BlobStore(settings.data_dir, settings.min_free_bytes)
            opened.callback(self.files.close)
            self.files.clear_temporary()
            clear_leftovers(settings.data_dir)
            self.database = Database(settings.database_url.get_secret_value())
            opened.callback(self.database.close)
            installation = _open_database(self.database)
            self.publisher = _publisher(settings, self.database)
            self._closing = opened.pop_all()
        self.wakeups = Wakeups(self.publisher.notify if self.publisher else lambda: None)
        moves = Moves(self.wakeups, self.files, settings.max_attempts)
        limits = LimitPolicy(settings.default_limits, settings.ceilings)
        presence = Presence()
        attempts = Attempts(self.database, self.files, moves, limits, presence, settings.lease_seconds)
        self.leases = Leases(self.database, moves, settings.lease_seconds)
        self.retention = Retention(self.database, self.files, settings.retention)
        self.services = Services(
            platform=PlatformInfo(installation=installation, lease_seconds=settings.lease_seconds),
            bounds=Bounds(settings.max_upload_bytes, settings.max_output_bytes, settings.archive_limits),
            files=self.files,
            models=Models(self.database, self.files, limits),
            tasks=Tasks(self.database, self.files, self.wakeups, moves),
            attempts=attempts,
            offers=Offers(self.database, self.wakeups, attempts),
            presence=presence,
            status=StatusReader(self.database, presence, settings.max_attempts, self.broker_trouble),
        )

    def broker_trouble(self) -> str | None:
        """What is wrong with the broker; None when it works, or when there is none."""
        state = self.publisher.state if self.publisher else _BROKER_OK
        return None if state == _BROKER_OK else state

    async def check_broker(self) -> None:
        """Pass when the broker works."""
        if trouble := self.broker_trouble():
            raise Unavailable(trouble)

    async def check_files(self) -> None:
        """Pass when uploads have room."""
        self.files.check_space()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the loops beside the routes, and close everything at the end."""
        loops = [asyncio.create_task(self.leases.run()), asyncio.create_task(self.retention.run())]
        for loop in loops:
            loop.add_done_callback(_report_death)
        if self.publisher:
            self.publisher.start()
        try:
            yield
        finally:
            self.wakeups.close()
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Stop the publisher and let go of database and folder."""
        if self.publisher:
            self.publisher.stop()
        self._closing.close()


def _report_death(loop: "asyncio.Task[None]") -> None:
    if not loop.cancelled() and (error := loop.exception()) is not None:
        log.critical("loop_died", exc_info=error)


def _lock(settings: PrivateApiSettings) -> FolderLock:
    try:
        return FolderLock(settings.data_dir)
    except OSError as error:
        raise Unavailable(f"DATA_DIR {settings.data_dir} cannot be used ({error.strerror}).") from error


def _open_database(database: Database) -> str:
    deadline = Deadline(_DATABASE_WITHIN)
    backoff = Backoff(most=timedelta(seconds=3))
    while True:
        try:
            migrate(database)
            database.write_sync(note_software)
            return database.write_sync(installation_id)
        except Unavailable as error:
            if database.is_sqlite or deadline.expired:
                raise
            log.warning("database_awaited", reason=error.message)
            time.sleep(deadline.at_most(backoff.pause()).total_seconds())


def _publisher(settings: PrivateApiSettings, database: Database) -> Publisher | None:
    if settings.rabbitmq_url is None:
        return None
    try:
        return Publisher(Outbox(database), RabbitPublisher(settings.rabbitmq_url.get_secret_value()))
    except ValueError as error:
        raise InvalidRequest("RABBITMQ_URL is no broker URL; write amqp://user:password@host:port/vhost.") from error
