"""The vector service: weights are set on all workers at once, vectors are summed up by whoever is free.

Whatever happens, the answer has status 200 and says in ``status`` whether it went well. Traces travel in base64.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.requests import Request

from contracts.errors import InvalidRequest, PlatformError
from contracts.inference import UNREADABLE, InferCall, InferResult, InvalidInput, ModelFailed, SwapFailed, WorkerOutcome
from online_gateway.dialects.base import DialectServices, HotRequest, Reply
from online_gateway.dialects.errors import generation_header
from online_gateway.dialects.routes import Routes, described_body
from online_gateway.information import EndpointInfo, WorkerInfo
from service_kit.multipart import UploadForm

NN_ID = "nn_id"
DATA = "data"
WEIGHTS_FAILED = "One or more workers were failed with weights loading"

_FORM = {"type": "object", "properties": {NN_ID: {"type": "string"}, DATA: {"type": "string", "format": "binary"}}}
_VECTOR = {"type": "object", "properties": {"vector": {"type": "array", "items": {"type": "number"}}}}


class _Vector(msgspec.Struct):
    vector: list[Any]


_decode = msgspec.json.Decoder(_Vector).decode
_encode = msgspec.json.Encoder().encode


def dialect(services: DialectServices) -> Routes:
    """The dialect."""
    return VectorPredict(services).routes


class VectorPredict:
    """What stands behind its routes."""

    def __init__(self, services: DialectServices) -> None:
        self._dataplane = services.dataplane
        self._control = services.control
        self._access = services.access
        self._max_call_bytes = services.max_call_bytes
        self._endpoint = services.vector_endpoint
        self.routes = Routes("vector service", _error, services.max_call_bytes)
        form = described_body(_FORM, "multipart/form-data")
        self.routes.add(("PUT",), "/set_weights", self._set_weights, "Give all workers new weights.", **form)
        self.routes.add(("GET",), "/status", self._status, "The queue, and each worker's figures.")
        self.routes.close()
        self.routes.include(self._predictions())

    def _predictions(self) -> Routes:
        routes = Routes("vector service", _prediction_error, self._max_call_bytes)
        routes.add_hot(("POST",), "/predict", self._predict, "Ask the network.", **described_body(_VECTOR))
        routes.close()
        return routes

    async def _predict(self, request: HotRequest) -> Reply:
        body = await request.body(self._max_call_bytes)
        try:
            vector = _decode(body).vector
        except UNREADABLE as error:
            raise InvalidInput(f'Send {{"vector": [0.3, 0.7]}}: {error}.') from error
        result = await self._dataplane.infer(InferCall(self._endpoint, {"vector": vector}), request.gone)
        answer = {"status": True, "message": result.label, "result": _number(result)}
        return _reply(answer)._replace(headers=(generation_header(result.generation),))

    async def _set_weights(self, request: Request) -> Reply:
        self._access.require_change(request.scope)
        form = UploadForm(request, DATA, (NN_ID,))
        if not await form.find():
            raise InvalidRequest(f"There is no file; send the fields {NN_ID!r} and, as a file, {DATA!r}.")
        async with self._control.staging() as staged:
            async for chunk in form.chunks():
                await staged.write(bytes(chunk))
            nn_id = form.texts.get(NN_ID, "").strip()
            if not nn_id:
                raise InvalidRequest(f"The field {NN_ID!r} is missing: it names the weights.")
            report = await self._control.install(self._endpoint, staged, label=nn_id)
        return _reply(_weights(True, "OK", report.workers))

    async def _status(self, _: Request) -> Reply:
        info = self._control.endpoint(self._endpoint)
        counted = info.statistics
        return _reply(
            {
                "status": True,
                "message": "OK",
                "queue_requests_current": counted.queue_now,
                "queue_requests_max": counted.queue_max,
                "req_handling_time_avg_ms": _milliseconds(counted.handling_mean_seconds),
                "workers_count": len(info.workers),
                "workers": [_worker(info, worker) for worker in info.workers],
            }
        )


def _number(result: InferResult) -> float:
    document = result.document
    number = document.get("result") if isinstance(document, dict) else document
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ModelFailed("The endpoint behind /predict must answer with a number, or with one in 'result'.")
    return float(number)


def _worker(info: EndpointInfo, worker: WorkerInfo) -> dict[str, Any]:
    return {
        "address": worker.addresses,
        "nn_id": info.label if worker.generation == info.generation else "",
        "req_handling_time_avg_ms": _milliseconds(worker.statistics.handling_mean_seconds),
        "count_requests_handled": worker.statistics.handled,
        "inference_time_avg_ms": _milliseconds(worker.statistics.inference_mean_seconds),
    }


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _weights(is_ok: bool, message: str, outcomes: Sequence[WorkerOutcome]) -> dict[str, Any]:
    workers = [
        {"result": True} if outcome.ok else {"result": False, "trace": _base64(outcome.trace or outcome.message)}
        for outcome in outcomes
    ]
    return {"status": is_ok, "message": message, "workers_count": len(workers), "workers": workers}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _reply(answer: Mapping[str, Any]) -> Reply:
    return Reply(200, _encode(answer))


def _error(_: int, message: str, error: PlatformError | None) -> Reply:
    if isinstance(error, SwapFailed):
        return _reply(_weights(False, WEIGHTS_FAILED, error.report.workers))
    return _reply({"status": False, "message": message})


def _prediction_error(_: int, message: str, error: PlatformError | None) -> Reply:
    trace = error.trace if isinstance(error, InvalidInput | ModelFailed) else ""
    return _reply({"status": False, "message": _base64(trace or message), "result": 0.0})
