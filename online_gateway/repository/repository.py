"""The accepted generations, on disk; several gateways may share the folder.

    DATA_DIR/
        repository.lock               held for the moments in which something below changes its name
        staging/<made up>             uploads while they arrive
        endpoints/<name>/
            current.json              the number of the accepted generation: whatever it does not name is not accepted;
                                      and the entry of an endpoint that an upload made
            last_number               the last number that was given out; none is given twice
            <number>/content          the file of a generation, if it has one
            <number>/generation.json  what else it is
            <number>/reserved         locked while a gateway lets workers try the generation

Everything is flushed to disk before ``current.json`` names it. What a crash leaves is unlocked and unnamed, and
:meth:`Repository.sweep` removes it.
"""

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from contracts.errors import Conflict
from online_gateway.durable_files import (
    TEMPORARY_SUFFIX,
    disk_errors,
    flush_folder,
    locked,
    open_locked,
    write_durably,
)
from online_gateway.repository.layout import (
    Accepted,
    Current,
    Reservation,
    Stamp,
    current_number,
    is_free,
    last_number,
    let_go,
    numbered,
    read_current,
    remove_generation,
    remove_unlocked,
    stamp_of,
)
from online_gateway.repository.staging import StagedContent
from service_kit.logging import get_logger

__all__ = ["Accepted", "Repository", "Reservation", "StagedContent"]

log = get_logger(__name__)

_LOOK_SECONDS = 0.5
_TRIES = 3


class Repository:
    """The folder; ``most_bytes`` bounds one upload. Blocking work happens in threads."""

    def __init__(self, data_dir: Path, *, most_bytes: int) -> None:
        self._lock = data_dir / "repository.lock"
        self._staging = data_dir / "staging"
        self._endpoints = data_dir / "endpoints"
        self._most_bytes = most_bytes
        self._last_numbers: dict[str, int] = {}
        for folder in (self._staging, self._endpoints):
            folder.mkdir(parents=True, exist_ok=True)

    @asynccontextmanager
    async def staging(self) -> AsyncIterator[StagedContent]:
        """A file to write into; removed at the end unless a reservation took it.

        Raises
        ------
        StorageFull, Unavailable
        """
        staged = await asyncio.to_thread(self._stage)
        try:
            yield staged
        finally:
            staged.discard()

    async def reserve(self, endpoint: str, staged: StagedContent | None, *, above: int = 0) -> Reservation:
        """Give out the endpoint's next number, and take the staged file over, flushed to disk.

        ``above``: the number of the generation that it has without being installed.

        Raises
        ------
        StorageFull, Unavailable
        Conflict
            The file was installed before.
        """
        if staged is not None:
            await staged.flush()
        return await asyncio.to_thread(self._reserve, endpoint, staged, above)

    async def accept(
        self, reservation: Reservation, accepted: Accepted, entry: Mapping[str, Any] | None = None
    ) -> None:
        """Make it the accepted generation; on disk when this returns, and if it raises, nothing has changed.

        Raises
        ------
        Conflict
            Another gateway has accepted a generation since the reservation.
        StorageFull, Unavailable
        """
        await asyncio.to_thread(self._accept, reservation, accepted, entry)

    async def discard(self, reservation: Reservation) -> None:
        """Remove a reservation that was not accepted."""
        await asyncio.to_thread(self._discard, reservation)

    async def current(self, endpoint: str) -> tuple[Accepted, Path | None] | None:
        """The accepted generation and where its content is; None where none was accepted, or its files are spoilt.

        Raises
        ------
        Unavailable
            The folder cannot be read now.
        """
        return await asyncio.to_thread(self._current, endpoint)

    async def entries(self) -> dict[str, dict[str, Any]]:
        """The endpoints that uploads made, with their entries.

        Raises
        ------
        Unavailable
        """
        return await asyncio.to_thread(self._entries)

    async def has(self, endpoint: str) -> bool:
        """Whether something is accepted for it, be it spoilt."""
        return await asyncio.to_thread((self._endpoints / endpoint / "current.json").exists)

    async def keep_entry(self, endpoint: str, entry: Mapping[str, Any]) -> None:
        """Replace the entry of an endpoint that an upload made.

        Raises
        ------
        Conflict
            Nothing of it is installed.
        StorageFull, Unavailable
        """
        await asyncio.to_thread(self._keep_entry, endpoint, entry)

    async def remove(self, endpoint: str) -> None:
        """Forget the endpoint, its entry and every generation.

        Raises
        ------
        Unavailable
        """
        await asyncio.to_thread(self._remove, endpoint)

    async def prune(self, endpoint: str) -> None:
        """Remove the generations before the newest two."""
        await asyncio.to_thread(self._in_turn, self._sweep_endpoint, self._endpoints / endpoint)

    async def sweep(self) -> None:
        """Remove what a crash left behind."""
        await asyncio.to_thread(self._in_turn, self._sweep)

    async def watch(self, changed: Callable[[str], Awaitable[None]], every_seconds: float = _LOOK_SECONDS) -> None:
        """Until it is cancelled: tell of each endpoint whose accepted generation or entry has changed, or is gone.

        It begins with all that are there, so that nothing is missed between reading them and watching. One endpoint
        may take long without holding up what is told of the others.
        """
        told: dict[str, Stamp] = {}
        busy: set[str] = set()

        async def tell(endpoint: str) -> None:
            try:
                await changed(endpoint)
            finally:
                busy.discard(endpoint)

        async with asyncio.TaskGroup() as telling:
            while True:
                now = await self._stamps_or(told)
                for endpoint in sorted((told.keys() | now.keys()) - busy):
                    if told.get(endpoint, ()) != now.get(endpoint, ()):
                        told[endpoint] = now.get(endpoint, ())
                        busy.add(endpoint)
                        telling.create_task(tell(endpoint))
                told = {endpoint: stamp for endpoint, stamp in told.items() if stamp or endpoint in busy}
                await asyncio.sleep(every_seconds)

    async def _stamps_or(self, before: dict[str, Stamp]) -> dict[str, Stamp]:
        """The stamps; those before while they cannot be read: too many files may be open for a moment."""
        try:
            return await asyncio.to_thread(self._stamps)
        except OSError as error:
            log.warning("repository_not_read", error=str(error))
            return before

    # In threads

    def _stage(self) -> StagedContent:
        with disk_errors(), locked(self._lock):
            return StagedContent(self._staging / secrets.token_hex(16), self._most_bytes)

    def _in_turn(self, work: Callable[..., None], *arguments: object) -> None:
        with disk_errors(), locked(self._lock):
            work(*arguments)

    def _reserve(self, endpoint: str, staged: StagedContent | None, above: int) -> Reservation:
        folder = self._endpoints / endpoint
        with disk_errors(), locked(self._lock):
            based_on = current_number(folder)
            taken = [int(one.name) for one in numbered(folder)]
            number = 1 + max(above, based_on or 0, self._last_numbers.get(endpoint, 0), last_number(folder), *taken)
            self._last_numbers[endpoint] = number
            content = None if staged is None else folder / str(number) / "content"
            reservation = Reservation(endpoint, number, content, based_on, None)
            try:
                (folder / str(number)).mkdir(parents=True)
                reservation.lock = open_locked(folder / str(number) / "reserved")
                write_durably(folder / "last_number", str(number).encode())
                if staged is not None and content is not None:
                    staged.move(content)
            except (OSError, Conflict):
                self._clear(reservation)
                raise
        return reservation

    def _accept(self, reservation: Reservation, accepted: Accepted, entry: Mapping[str, Any] | None) -> None:
        folder = self._endpoints / reservation.endpoint
        generation = folder / str(reservation.number)
        with disk_errors(), locked(self._lock):
            there = read_current(folder)
            number = None if there is None else there.number
            if number != reservation.based_on or not generation.is_dir():
                raise Conflict(
                    f"Another gateway has changed {reservation.endpoint!r} meanwhile"
                    f" (generation {number or 'none'} is accepted there); try again."
                )
            kept = dict(entry) if entry is not None else there.entry if there is not None else None
            write_durably(generation / "generation.json", msgspec.json.encode(accepted))
            flush_folder(generation)
            flush_folder(folder)
            flush_folder(self._endpoints)
            write_durably(folder / "current.json", msgspec.json.encode(Current(reservation.number, kept)))
            let_go(reservation)
            try:
                flush_folder(folder)
            except OSError as error:  # everybody sees it already: it is accepted
                log.warning("generation_not_flushed", endpoint=reservation.endpoint, error=str(error))

    def _discard(self, reservation: Reservation) -> None:
        with disk_errors(), locked(self._lock):
            if current_number(self._endpoints / reservation.endpoint) != reservation.number:
                self._clear(reservation)

    def _clear(self, reservation: Reservation) -> None:
        let_go(reservation)
        folder = self._endpoints / reservation.endpoint
        remove_generation(folder / str(reservation.number))
        self._sweep_endpoint(folder)

    def _current(self, endpoint: str) -> tuple[Accepted, Path | None] | None:
        folder = self._endpoints / endpoint
        for is_last in (*[False] * (_TRIES - 1), True):
            with disk_errors():
                number = current_number(folder)
            if number is None:
                return None
            generation = folder / str(number)
            try:
                with disk_errors(FileNotFoundError, NotADirectoryError):
                    accepted = msgspec.json.decode((generation / "generation.json").read_bytes(), type=Accepted)
                    content = None if accepted.content_bytes is None else generation / "content"
                    size = None if content is None else content.stat().st_size
            except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError, msgspec.MsgspecError) as error:
                if is_last:  # else another gateway may have gone on to the one after the next
                    log.warning("generation_spoilt", endpoint=endpoint, generation=number, error=str(error))
                continue
            if size == accepted.content_bytes:
                return accepted, content
            log.warning("generation_spoilt", endpoint=endpoint, generation=number, error=f"{content} has {size} bytes")
            return None
        return None

    def _entries(self) -> dict[str, dict[str, Any]]:
        with disk_errors():
            read = {folder.name: read_current(folder) for folder in sorted(self._endpoints.iterdir())}
        return {name: current.entry for name, current in read.items() if current and current.entry is not None}

    def _keep_entry(self, endpoint: str, entry: Mapping[str, Any]) -> None:
        folder = self._endpoints / endpoint
        with disk_errors(), locked(self._lock):
            there = read_current(folder)
            if there is None:
                raise Conflict(f"{endpoint!r} was removed, or nothing was installed there yet.")
            write_durably(folder / "current.json", msgspec.json.encode(Current(there.number, dict(entry))))
            flush_folder(folder)

    def _remove(self, endpoint: str) -> None:
        folder = self._endpoints / endpoint
        with disk_errors(), locked(self._lock):
            if folder.is_dir():
                (folder / "current.json").unlink(missing_ok=True)
                flush_folder(folder)
                self._sweep_endpoint(folder)

    def _sweep(self) -> None:
        for path in self._staging.iterdir():
            remove_unlocked(path)
        for folder in self._endpoints.iterdir():
            self._sweep_endpoint(folder)

    def _sweep_endpoint(self, folder: Path) -> None:
        """Leave the newest two accepted generations, and those that are being tried."""
        if not folder.is_dir():
            return
        for path in folder.glob(f"*{TEMPORARY_SUFFIX}"):
            path.unlink(missing_ok=True)
        number = current_number(folder)
        if number is None and (folder / "current.json").exists():
            return  # spoilt: somebody should look at what is there
        whole = [one for one in numbered(folder) if number is not None and (one / "generation.json").exists()]
        kept = sorted(int(one.name) for one in whole if int(one.name) <= (number or 0))[-2:]
        for generation in numbered(folder):
            if int(generation.name) not in kept and is_free(generation):
                remove_generation(generation)
        if number is None and not numbered(folder):
            shutil.rmtree(folder)

    def _stamps(self) -> dict[str, Stamp]:
        return {
            folder.name: stamp for folder in self._endpoints.iterdir() if (stamp := stamp_of(folder / "current.json"))
        }
