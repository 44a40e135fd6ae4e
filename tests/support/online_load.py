"""Users who call an endpoint without a pause, each over a connection of its own, and write down every call.

    with OnlineLoad(platform.url, {"SIGNATURE": "echo"}, connections=64) as load:
        load.wait_calls(1000)
    assert load.failures == []

Nobody asks twice: what fails is written down as it came, and its user goes on with the next call.
"""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from tests.support.waiting import eventually

LOST_CONNECTION = 0
"""The status of a call whose connection broke."""
HUNG = -1
"""The status of a call that nobody answered."""

_PAUSE = 0.05
"""Before a broken connection is made anew."""


@dataclass(frozen=True)
class MadeCall:
    """One call; times are on the monotonic clock, in seconds."""

    user: int
    began: float
    ended: float
    status: int
    generation: int | None
    """What the header Model-Generation says."""
    body: Any

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began

    @property
    def is_ok(self) -> bool:
        """Whether it was answered with a result."""
        return self.status == 200


class OnlineLoad:
    """Runs as long as the context, or until :meth:`stop`; its users live in a thread of their own."""

    def __init__(
        self,
        url: str,
        document: dict[str, Any],
        *,
        connections: int,
        path: str = "/run",
        gives_up_after: float = 60,
    ) -> None:
        """``gives_up_after``: a call that took so many seconds counts as HUNG."""
        host, _, port = url.removeprefix("http://").partition(":")
        self._place = (host, int(port))
        self._request = _request(host, path, document)
        self._connections = connections
        self._gives_up_after = gives_up_after
        self._calls: list[MadeCall] = []
        self._broken: list[BaseException] = []
        self._is_over = False
        self._thread = threading.Thread(target=self._run)

    @property
    def calls(self) -> Sequence[MadeCall]:
        """The calls that have ended, in the order of their ends."""
        return self._calls[:]

    @property
    def failures(self) -> list[MadeCall]:
        """Those of them that had no result."""
        return [call for call in self._calls[:] if not call.is_ok]

    def since(self, moment: float) -> list[MadeCall]:
        """Those that began after this moment of the monotonic clock."""
        return [call for call in self._calls[:] if call.began > moment]

    def answers(self, key: str) -> set[Any]:
        """What stands there in the answers so far."""
        return {call.body.get(key) for call in self._calls[:] if call.is_ok}

    def wait_calls(self, count: int, within: float = 60) -> None:
        """Wait until so many more calls had a result."""
        before = self._answered()
        eventually(lambda: self._broken or self._answered() >= before + count, within)
        assert not self._broken, self._broken

    def wait_for(self, is_wanted: Callable[[MadeCall], bool], within: float = 60) -> MadeCall:
        """The first call that is wanted, once there is one."""
        return eventually(lambda: next((call for call in self._calls[:] if is_wanted(call)), None), within)

    def stop(self) -> None:
        """Let the calls under way end, and begin no others."""
        self._is_over = True
        self._thread.join(2 * self._gives_up_after)
        assert not self._thread.is_alive(), "the users of the load did not end"
        assert not self._broken, self._broken

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _answered(self) -> int:
        return sum(call.is_ok for call in self._calls[:])

    def _run(self) -> None:
        asyncio.run(self._use())

    async def _use(self) -> None:
        users: list[Coroutine[Any, Any, None]] = [self._user(number) for number in range(self._connections)]
        ends = await asyncio.gather(*users, return_exceptions=True)
        self._broken += [end for end in ends if end is not None]

    async def _user(self, number: int) -> None:
        while not self._is_over:
            began = time.monotonic()
            try:
                reader, writer = await asyncio.open_connection(*self._place)
            except OSError as error:
                self._note(number, began, LOST_CONNECTION, None, repr(error))
                await asyncio.sleep(_PAUSE)
                continue
            try:
                await self._converse(number, reader, writer)
            finally:
                writer.transport.abort()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def _converse(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Call until it is over, or the connection of no more use."""
        while not self._is_over:
            began = time.monotonic()
            writer.write(self._request)
            try:
                async with asyncio.timeout(self._gives_up_after):
                    status, generation, body = await _answer(reader)
            except TimeoutError:
                self._note(number, began, HUNG, None, "no answer")
                return
            except (OSError, asyncio.IncompleteReadError) as error:
                self._note(number, began, LOST_CONNECTION, None, repr(error))
                await asyncio.sleep(_PAUSE)
                return
            self._note(number, began, status, generation, body)

    def _note(self, number: int, began: float, status: int, generation: int | None, body: Any) -> None:
        self._calls.append(MadeCall(number, began, time.monotonic(), status, generation, body))


def _request(host: str, path: str, document: dict[str, Any]) -> bytes:
    body = json.dumps(document).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _answer(reader: asyncio.StreamReader) -> tuple[int, int | None, Any]:
    """Status, generation and document of the answer."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines if line)
    body = await reader.readexactly(int(headers["content-length"]))
    generation = headers.get("model-generation")
    return int(first.split()[1]), None if generation is None else int(generation), json.loads(body)
