"""ONNX models that users upload, describe and ask, as the clients of the Inferrer know it.

Every answer carries ``http_status``, an object with code, name and description; errors carry nothing else. A prediction
is the model's first output, in ``values``. A model's name ends in ``.onnx`` here; an endpoint of the configuration may
leave that out.
"""

import asyncio
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.requests import Request

from contracts.errors import Conflict, PlatformError
from contracts.inference import (
    UNREADABLE,
    EndpointNotReady,
    InferCall,
    InvalidInput,
    ModelFailed,
    SwapFailed,
    UnknownEndpoint,
)
from online_gateway.dialects import metrics
from online_gateway.dialects.base import DialectServices, HotRequest, Reply
from online_gateway.dialects.errors import generation_header, refusals
from online_gateway.dialects.routes import Routes, described_body, read_body
from online_gateway.information import EndpointInfo
from service_kit.multipart import UploadForm

FILE_FIELD = "path"
DESCRIPTION_FIELD = "model_description"
SUFFIX = ".onnx"

_MODELS = "/api/v1/models"
_SPREAD_TEST = "/api/test/sendtomodelhost"
_MOST_ITEMS = 1000
_WELCOME = "This is InferenceServer. GET /api/v1/models lists its models; /docs describes all calls."
_FORM = {
    "type": "object",
    "properties": {FILE_FIELD: {"type": "string", "format": "binary"}, DESCRIPTION_FIELD: {"type": "string"}},
}

_NAMES = {413: "Request Entity Too Large", 422: "Unprocessable Entity"}
"""Names that Python has changed since clients came to know them."""

_encode = msgspec.json.Encoder().encode


class _Description(msgspec.Struct):
    model_description: str


class _Items(msgspec.Struct):
    data: list[Any]


_decode_values = msgspec.json.Decoder(dict[str, Any]).decode
_decode_description = msgspec.json.Decoder(_Description).decode
_decode_items = msgspec.json.Decoder(_Items).decode


def dialect(services: DialectServices) -> Routes:
    """The dialect."""
    return OnnxModels(services).routes


class OnnxModels:
    """What stands behind its routes."""

    def __init__(self, services: DialectServices) -> None:
        self._dataplane = services.dataplane
        self._control = services.control
        self._access = services.access
        self._max_call_bytes = services.max_call_bytes
        self.routes = Routes("ONNX models", _error, services.max_call_bytes)
        self._add_routes(self.routes)

    def _add_routes(self, routes: Routes) -> None:
        get, both = ("GET",), ("GET", "POST")
        model = f"{_MODELS}/{{model}}"
        routes.add(get, "/", self._welcome, "A welcome.")
        routes.add(get, _MODELS, self._list, "The names of all models.")
        routes.add(get, f"{_MODELS}/information", self._list_information, "All models, with their descriptions.")
        routes.add(get, model, self._information, "The model's inputs, types, outputs and description.")
        form = described_body(_FORM, "multipart/form-data")
        routes.add(("PUT",), model, self._upload, "Upload the model, or replace it.", **form)
        description = described_body({"type": "object", "properties": {DESCRIPTION_FIELD: {"type": "string"}}})
        routes.add(("POST",), model, self._describe, "Change the model's description.", **description)
        routes.add(("DELETE",), model, self._delete, "Delete the model.")
        values = described_body({"type": "object", "properties": {"values": {"type": "array", "items": {}}}})
        routes.add_hot(both, f"{model}/prediction", self._predict, "Ask the model.", **values)
        items = described_body({"type": "object", "properties": {"data": {"type": "array", "items": {}}}})
        for path in (f"{_SPREAD_TEST}/", _SPREAD_TEST):
            routes.add(both, path, self._spread, "Give each item to some model host, to see the load spread.", **items)
        routes.add(get, "/metrics", self._metrics, "Counters and histograms, as Prometheus reads them.")
        routes.close(["/api"])

    # Models

    async def _welcome(self, _: Request) -> Reply:
        return _reply(200, _WELCOME)

    async def _list(self, _: Request) -> Reply:
        return _reply(200, model_list=list(self._models()))

    async def _list_information(self, _: Request) -> Reply:
        models = self._models().items()
        return _reply(200, model_list=[{"model": name, "description": info.description} for name, info in models])

    async def _information(self, request: Request) -> Reply:
        info = self._model(request.path_params["model"])
        specs = [*info.inputs, *info.outputs]
        return _reply(
            200,
            model=request.path_params["model"],
            description=info.description,
            inputs=[{"name": spec.name, "shape": list(spec.shape)} for spec in info.inputs],
            outputs=[{"name": spec.name, "shape": list(spec.shape)} for spec in info.outputs],
            types={spec.name: spec.datatype for spec in specs},
            state=info.state,
            generation=info.generation,
        )

    async def _upload(self, request: Request) -> Reply:
        self._access.require_change(request.scope)
        name = request.path_params["model"]
        if not name.endswith(SUFFIX):
            return _reply(415, f"A model's name ends in {SUFFIX}; {name!r} does not.")
        form = UploadForm(request, FILE_FIELD, (DESCRIPTION_FIELD,))
        if not await form.find():
            raise InvalidInput(f"There is no file; send multipart/form-data with a file field {FILE_FIELD!r}.")
        async with self._control.staging() as staged:
            async for chunk in form.chunks():
                await staged.write(bytes(chunk))
            description = form.texts.get(DESCRIPTION_FIELD)
            endpoint = self._endpoint_for(name)
            report = await self._control.install(endpoint, staged, description=description, create="onnx")
        return _reply(201, f"{name} is served.", generation=report.generation)

    async def _describe(self, request: Request) -> Reply:
        self._access.require_change(request.scope)
        name = request.path_params["model"]
        endpoint = self._model(name).name
        try:
            description = _decode_description(await read_body(request, self._max_call_bytes)).model_description
        except UNREADABLE as error:
            raise InvalidInput(f'Send {{"{DESCRIPTION_FIELD}": "some text"}}: {error}.') from error
        await self._control.describe(endpoint, description)
        return _reply(200, f"The description of {name} was changed.")

    async def _delete(self, request: Request) -> Reply:
        self._access.require_change(request.scope)
        name = request.path_params["model"]
        await self._control.remove(self._model(name).name)
        return _reply(200, f"{name} was deleted.")

    def _models(self) -> dict[str, EndpointInfo]:
        """All models, by the names that they have here."""
        infos = {info.name: info for info in self._control.endpoints("onnx")}
        return {
            name if name.endswith(SUFFIX) or name + SUFFIX in infos else name + SUFFIX: infos[name] for name in infos
        }

    def _model(self, name: str) -> EndpointInfo:
        for candidate in (name, name.removesuffix(SUFFIX)):
            try:
                info = self._control.endpoint(candidate)
            except UnknownEndpoint:
                continue
            if info.engine == "onnx" and not info.is_hidden:
                return info
        raise UnknownEndpoint(f"There is no model {name!r}; GET {_MODELS} lists those there are.")

    def _endpoint_for(self, name: str) -> str:
        """The endpoint that an upload of this name replaces, or makes."""
        try:
            return self._model(name).name
        except UnknownEndpoint:
            return name

    # Calls

    async def _predict(self, request: HotRequest) -> Reply:
        assert request.match is not None  # noqa: S101 - a route of a pattern
        name = request.match["model"]
        info = self._model(name)
        if info.state == "disabled":
            raise Conflict(f"{name!r} cannot be asked now. {info.reason}")
        values = _values_of(await request.body(self._max_call_bytes))
        result = await self._dataplane.infer(InferCall(info.name, {"values": values}), request.gone)
        reply = _reply(200, "Prediction successful", values=_prediction(result.document))
        return reply._replace(headers=(generation_header(result.generation),))

    async def _spread(self, request: Request) -> Reply:
        try:
            items = _decode_items(await read_body(request, self._max_call_bytes)).data
        except UNREADABLE as error:
            raise InvalidInput(f'Send {{"data": ["ONE", "TWO"]}}, a list of any values: {error}.') from error
        if len(items) > _MOST_ITEMS:
            raise InvalidInput(f"There are {len(items)} items; {_MOST_ITEMS} are the most.")
        answers = await asyncio.gather(*map(self._send_to_modelhost, items), return_exceptions=True)
        failure = next((answer for answer in answers if isinstance(answer, BaseException)), None)
        if failure is not None:
            raise failure
        return _reply(200, responses=answers)

    async def _send_to_modelhost(self, item: Any) -> dict[str, Any]:
        result = await self._dataplane.infer(InferCall(self._control.pool_echo, {"data": item}))
        return {"data": item, "modelhost": result.worker_id}

    async def _metrics(self, _: Request) -> Reply:
        text, content_type = metrics.exposition(self._control.endpoints())
        return Reply(200, text, content_type)


def _values_of(body: bytes) -> list[Any]:
    try:
        document = _decode_values(body)
    except UNREADABLE as error:
        raise InvalidInput(f'Send {{"values": [...]}}: {error}.') from error
    values = document.get("values")
    if not isinstance(values, list):
        raise InvalidInput('"values" is missing, or is no list: send {"values": [...]}.')
    return values


def _prediction(document: Any) -> list[Any]:
    values = document.get("values") if isinstance(document, dict) else None
    if values is None:
        raise ModelFailed("The model gave no values.")
    return values if isinstance(values, list) else [values]


def _reply(status: int, description: str = "", /, **more: Any) -> Reply:
    name = _NAMES.get(status) or HTTPStatus(status).phrase
    http_status = {"code": status, "name": name, "description": description or name}
    try:
        return Reply(status, _encode({"http_status": http_status, **more}))
    except TypeError as error:
        raise ModelFailed(f"The model's answer cannot be written as JSON: {error}.") from error


def _error(status: int, message: str, error: PlatformError | None) -> Reply:
    if isinstance(error, SwapFailed):
        message = refusals(error.report)
    if isinstance(error, EndpointNotReady) and not message:
        message = "No model host is ready."
    return _reply(status, message)
