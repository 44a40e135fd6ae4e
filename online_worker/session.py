"""What one gateway has this worker hold and do, as long as it is connected."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from contracts.worker_protocol import (
    Call,
    Calls,
    Cancel,
    Chunk,
    Failure,
    FromWorker,
    Heartbeat,
    Leave,
    Load,
    Loaded,
    NeedContent,
    ProtocolError,
    Result,
    Results,
    Unload,
    Welcome,
    decode_from_gateway,
)
from online_worker.contents import Arrival, ContentBroken, Contents
from online_worker.engines.base import LoadedModel
from online_worker.engines.failures import sendable
from online_worker.loader import Loader, Order, Outcome
from online_worker.memory import resident_bytes
from online_worker.models import ModelKey
from online_worker.stream import Stream

Place = tuple[str, int]
"""An endpoint's name and the number of one of its generations, as this gateway counts them."""


@dataclass(frozen=True)
class Services:
    """What all sessions share."""

    loader: Loader
    contents: Contents
    post: Callable[[Callable[[], None]], None]
    """Has the loop's thread call something soon."""
    on_leave: Callable[[], None]
    """The gateway asks the whole worker to end."""


@dataclass
class Holding:
    """A generation in memory."""

    key: ModelKey
    model: LoadedModel


@dataclass
class _Coming:
    """A generation on its way into memory."""

    load: Load
    arrival: Arrival | None = None
    order: Order | None = None
    """What the loader was told, once all of the content is here."""


class Session:
    """Only the loop's thread calls it."""

    def __init__(self, stream: Stream, welcome: Welcome, services: Services, left_behind: list[ModelKey]) -> None:
        """``left_behind`` takes what is held when the session ends: the gateway may come back and ask for it."""
        self.stream = stream
        self.heartbeat_seconds = welcome.heartbeat_seconds
        self.silence_seconds = welcome.silence_seconds
        self.generations: dict[Place, Holding] = {}
        self.was_asked_to_leave = False
        """Whether the gateway, and not this worker, spoke of leaving: it sends no more calls."""
        self.is_open = True
        self._coming: dict[Place, _Coming] = {}
        self._left_behind = left_behind
        self._services = services

    def take(self, body: bytes) -> Calls | Cancel | None:
        """Act on a frame; calls and their cancellation are for the caller to act on.

        Raises
        ------
        ProtocolError
            The gateway says what no gateway should.
        """
        message = decode_from_gateway(body)
        match message:
            case Calls() | Cancel():
                return message
            case Load():
                self._load(message)
            case Chunk():
                self._take_chunk(message)
            case Unload():
                self._unload((message.endpoint, message.generation))
            case Heartbeat():
                pass  # that something arrived is what it says
            case Leave():
                self.was_asked_to_leave = True
                self._services.on_leave()
            case _:
                raise ProtocolError(f"The gateway sent a {type(message).__name__} after the handshake.")
        return None

    def answer(self, results: list[Result | Failure]) -> None:
        """Send the answers; one that cannot travel is replaced by a failure that says so."""
        try:
            self.stream.send(Results(results))
        except ProtocolError:
            for result in results:
                self._answer_one(result)

    def answer_skipped(self, ids: list[int]) -> None:
        """Tell that these calls were cancelled before they began."""
        if ids:
            self.answer([Failure(one, "cancelled", "It was cancelled before it began.", "") for one in ids])

    def _answer_one(self, result: Result | Failure) -> None:
        try:
            self.stream.send(Results([result]))
        except ProtocolError as error:
            message = f"The endpoint's answer cannot be sent: {sendable(str(error), 1000)}"
            self.stream.send(Results([Failure(result.id, "model_failed", message, "")]))

    def predict(self, call: Call) -> Result | Failure:
        """Answer one call."""
        holding = self.generations.get((call.endpoint, call.generation))
        if holding is None:
            return _not_loaded(call)
        return holding.model.infer([call], together=False)[0]

    def predict_together(self, calls: list[Call]) -> list[Result | Failure]:
        """Answer calls of one generation, predicted together."""
        holding = self.generations.get((calls[0].endpoint, calls[0].generation))
        if holding is None:
            return [_not_loaded(call) for call in calls]
        return holding.model.infer(calls, together=True)

    def end(self) -> None:
        """Close the connection; what is held is left behind, what is arriving is dropped."""
        self.is_open = False
        self.stream.close()
        self._left_behind += [holding.key for holding in self.generations.values()]
        self.generations.clear()
        for place in list(self._coming):
            self._forget(place)

    def _send(self, message: FromWorker) -> None:
        self.stream.send(message)

    def _load(self, load: Load) -> None:
        place, key = (load.endpoint, load.generation), ModelKey(load.endpoint, load.digest)
        held, coming = self.generations.get(place), self._coming.get(place)
        if held is not None and held.key == key:
            self._say_loaded(place, held.model)
            return
        if coming is not None and coming.load.digest == load.digest:
            return  # its answer is on its way
        self._forget(place)
        model = self._services.loader.models.hold(key)
        if model is not None:
            self._hold(place, key, model)
            return
        coming = self._coming[place] = _Coming(load)
        if load.content_bytes is None:
            self._order(place, coming)
        else:
            self._ask_for_content(place, coming, load.content_bytes)

    def _ask_for_content(self, place: Place, coming: _Coming, size: int) -> None:
        try:
            coming.arrival = self._services.contents.receive(size)
        except OSError as error:
            self._refuse(place, f"The content cannot be kept on this worker's host: {error}.")
        else:
            self._send(NeedContent(*place))

    def _take_chunk(self, chunk: Chunk) -> None:
        place = (chunk.endpoint, chunk.generation)
        coming = self._coming.get(place)
        if coming is None or coming.arrival is None:
            return  # it was refused, or unloaded, while this was under way
        try:
            is_whole = coming.arrival.take(chunk.data, is_last=chunk.is_last)
        except ContentBroken as error:
            self._refuse(place, str(error))
        except OSError as error:
            self._refuse(place, f"The content cannot be kept on this worker's host: {error}.")
        else:
            if is_whole:
                self._order(place, coming)

    def _order(self, place: Place, coming: _Coming) -> None:
        load, arrival = coming.load, coming.arrival
        coming.arrival = None
        order = coming.order = Order(
            key=ModelKey(load.endpoint, load.digest),
            engine=load.engine,
            config=load.config,
            content=None if arrival is None else arrival.path,
        )

        def done(outcome: Outcome) -> None:
            self._services.post(partial(self._finish, place, coming, outcome))

        self._services.loader.load(order, done)

    def _finish(self, place: Place, coming: _Coming, outcome: Outcome) -> None:
        key = ModelKey(coming.load.endpoint, coming.load.digest)
        is_wanted = self._coming.get(place) is coming
        if is_wanted:
            del self._coming[place]
        if outcome.model is None:
            if is_wanted:
                self._send(_loaded(place, message=outcome.message, trace=outcome.trace))
        elif is_wanted:
            self._hold(place, key, outcome.model)
        elif self.is_open:
            self._services.loader.models.release(key)
        else:
            self._left_behind.append(key)

    def _hold(self, place: Place, key: ModelKey, model: LoadedModel) -> None:
        before = self.generations.get(place)
        self.generations[place] = Holding(key, model)
        if before is not None:
            self._services.loader.models.release(before.key)
        self._say_loaded(place, model)

    def _say_loaded(self, place: Place, model: LoadedModel) -> None:
        self._send(_loaded(place, model))

    def _refuse(self, place: Place, message: str) -> None:
        self._forget(place)
        self._send(_loaded(place, message=message))

    def _unload(self, place: Place) -> None:
        coming = self._coming.get(place)
        if coming is not None and coming.order is not None:
            self._services.loader.give_up(coming.order)
        self._forget(place)
        holding = self.generations.pop(place, None)
        if holding is not None:
            self._services.loader.models.release(holding.key)

    def _forget(self, place: Place) -> None:
        """Drop what is on its way there."""
        coming = self._coming.pop(place, None)
        if coming is not None and coming.arrival is not None:
            coming.arrival.discard()


def _loaded(place: Place, model: LoadedModel | None = None, message: str = "OK", trace: str = "") -> Loaded:
    endpoint, generation = place
    return Loaded(
        endpoint=endpoint,
        generation=generation,
        ok=model is not None,
        message=message,
        trace=trace,
        inputs=list(model.inputs) if model else [],
        outputs=list(model.outputs) if model else [],
        version=model.version if model else None,
        memory_bytes=resident_bytes(),
    )


def _not_loaded(call: Call) -> Failure:
    return Failure(
        call.id, "not_loaded", f"Generation {call.generation} of '{call.endpoint}' is not in memory here.", ""
    )
