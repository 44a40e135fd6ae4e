"""A way to a worker that answers when the test says so; what it is sent goes through real frames."""

from collections.abc import Callable
from typing import Any

from contracts.worker_protocol import (
    HEADER_BYTES,
    Call,
    Calls,
    Cancel,
    Failure,
    FromGateway,
    Result,
    decode_from_gateway,
    frame,
)
from online_gateway.dataplane.plane import DataPlane


class HeldLink:
    """The data plane's side of one worker."""

    def __init__(self, plane: DataPlane, worker_id: str = "worker") -> None:
        self.worker_id = worker_id
        self.plane = plane
        self.frames: list[Calls] = []
        self.calls: dict[int, Call] = {}
        """Calls that it has not answered, in the order of their coming."""
        self.cancelled: list[int] = []
        self.on_send: Callable[[FromGateway], None] = lambda _: None

    def send(self, message: FromGateway) -> None:
        arrived = decode_from_gateway(bytes(frame(message)[HEADER_BYTES:]))
        if isinstance(arrived, Calls):
            self.frames.append(arrived)
            self.calls |= {call.id: call for call in arrived.calls}
        elif isinstance(arrived, Cancel):
            self.cancelled += arrived.ids
        self.on_send(arrived)

    @property
    def documents(self) -> list[Any]:
        """What it was asked and has not answered."""
        return [call.document for call in self.calls.values()]

    def answer(self, *ids: int, seconds: float = 0.01) -> None:
        """Answer these calls, or all, each with its own document."""
        answers = [self.calls.pop(one) for one in ids or tuple(self.calls)]
        self.plane.on_results(self, [Result(call.id, call.document, None, seconds) for call in answers])

    def fail(self, kind: str, *ids: int) -> None:
        """Fail these calls, or all."""
        failed = [self.calls.pop(one) for one in ids or tuple(self.calls)]
        self.plane.on_results(self, [Failure(call.id, kind, f"it is {kind}", "trace") for call in failed])
