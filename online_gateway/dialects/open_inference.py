"""The Open Inference Protocol v2, as the Triton server extends it; the gateway's native wire.

A model's versions are its generations. Tensors may be sent in binary, and bodies may be compressed; both ways.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request

from contracts.errors import InvalidRequest, PlatformError
from contracts.inference import UNREADABLE, InferCall, InvalidInput, SwapFailed, UnknownEndpoint
from online_gateway.dialects.base import DialectServices, HotRequest, Reply
from online_gateway.dialects.compression import compressed, decompressed
from online_gateway.dialects.errors import RETRY_LATER, generation_header, refusals
from online_gateway.dialects.open_inference_files import file_to_install
from online_gateway.dialects.open_inference_models import configuration, index_entry, metadata, model_statistics
from online_gateway.dialects.open_inference_tensors import HEADER_LENGTH, read_request, write_answer
from online_gateway.dialects.routes import Routes, described_body, read_body
from online_gateway.information import EndpointInfo

EXTENSIONS = (
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "statistics",
)

_BINARY = b"application/octet-stream"

_Read = TypeVar("_Read")
_encode = msgspec.json.Encoder().encode


class _IndexRequest(msgspec.Struct):
    ready: bool = False


class _LoadRequest(msgspec.Struct):
    parameters: dict[str, Any] = {}


def dialect(services: DialectServices) -> Routes:
    """The dialect."""
    return OpenInference(services).routes


class OpenInference:
    """What stands behind its routes."""

    def __init__(self, services: DialectServices) -> None:
        self._dataplane = services.dataplane
        self._control = services.control
        self._access = services.access
        self._max_call_bytes = services.max_call_bytes
        self.routes = Routes("Open Inference Protocol", _error, services.max_call_bytes)
        self._add_routes(self.routes)

    def _add_routes(self, routes: Routes) -> None:
        get, post = ("GET",), ("POST",)
        routes.add(get, "/v2", self._server, "Name, version and extensions of the server.")
        routes.add(get, "/v2/health/live", self._live, "Whether the gateway runs.")
        routes.add(get, "/v2/health/ready", self._ready, "Whether every model can answer.")
        routes.add(get, "/v2/models/stats", self._all_statistics, "Statistics of all models.")
        body = described_body({"type": "object", "properties": {"inputs": {"type": "array"}}})
        for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            routes.add_hot(post, f"{path}/infer", self._infer, "Call the model.", **body)
            routes.add(get, path, self._metadata, "The model's versions, inputs and outputs.")
            routes.add(get, f"{path}/ready", self._model_ready, "Whether the model can answer.")
            routes.add(get, f"{path}/config", self._config, "The model's configuration.")
            routes.add(get, f"{path}/stats", self._statistics, "The model's statistics.")
        routes.add(post, "/v2/repository/index", self._index, "All models, with their state.")
        path = "/v2/repository/models/{model}"
        routes.add(post, f"{path}/load", self._load, "Serve the model again, or install a file and serve it.")
        routes.add(post, f"{path}/unload", self._unload, "Stop serving the model.")
        routes.close(["/v2"])

    # Inference

    async def _infer(self, request: HotRequest) -> Reply:
        assert request.match is not None  # noqa: S101 - a route of a pattern
        parts = request.match.groupdict()
        model = parts["model"]
        body = await request.body(self._max_call_bytes)
        headers = request.headers()
        encoding = headers.get(b"content-encoding")
        if encoding is not None:
            body = await decompressed(body, encoding, self._max_call_bytes)
        asked = read_request(body, headers.get(HEADER_LENGTH), lambda: self._control.endpoint(model).inputs)
        call = InferCall(
            model,
            tensors=asked.tensors,
            outputs=list(asked.outputs),
            generation=_generation(model, parts.get("version")),
            budget_seconds=asked.budget_seconds,
        )
        result = await self._dataplane.infer(call, request.gone)
        answer, json_length = write_answer(model, asked, result)
        reply = Reply(200, answer, headers=(generation_header(result.generation),))
        if json_length is not None:
            length = (b"inference-header-content-length", str(json_length).encode())
            reply = reply._replace(content_type=_BINARY, headers=(*reply.headers, length))
        accepted = headers.get(b"accept-encoding")
        return reply if accepted is None else await compressed(reply, accepted)

    # Server

    async def _server(self, _: Request) -> Reply:
        return _reply(
            {"name": self._control.server_name, "version": self._control.version, "extensions": list(EXTENSIONS)}
        )

    async def _live(self, _: Request) -> Reply:
        return _reply({"live": True})

    async def _ready(self, _: Request) -> Reply:
        if any(info.keeps_callers_waiting for info in self._control.endpoints()):
            return _not_now({"live": True, "ready": False})
        return _reply({"live": True, "ready": True})

    # Models

    async def _metadata(self, request: Request) -> Reply:
        return _reply(metadata(self._model(request)))

    async def _model_ready(self, request: Request) -> Reply:
        info = self._model(request)
        if info.state == "ready":
            return _reply({"name": info.name, "ready": True})
        return _not_now({"name": info.name, "ready": False, "error": info.reason})

    async def _config(self, request: Request) -> Reply:
        return _reply(configuration(self._model(request)))

    async def _all_statistics(self, _: Request) -> Reply:
        return _reply({"model_stats": [model_statistics(info) for info in self._control.endpoints()]})

    async def _statistics(self, request: Request) -> Reply:
        return _reply({"model_stats": [model_statistics(self._model(request))]})

    def _model(self, request: Request) -> EndpointInfo:
        """The model of the path, which must have the version of the path."""
        info = self._control.endpoint(request.path_params["model"])
        version = _generation(info.name, request.path_params.get("version"))
        if version is not None and version not in info.generations:
            known = ", ".join(map(str, info.generations)) or "none"
            raise UnknownEndpoint(f"{info.name!r} has no version {version}; there are {known}.")
        return info

    # Repository

    async def _index(self, request: Request) -> Reply:
        wanted = await self._read(request, _IndexRequest)
        infos = [info for info in self._control.endpoints() if info.state == "ready" or not wanted.ready]
        return Reply(200, _encode([index_entry(info) for info in infos]))

    async def _load(self, request: Request) -> Reply:
        self._access.require_change(request.scope)
        model = request.path_params["model"]
        content = file_to_install((await self._read(request, _LoadRequest)).parameters)
        if content is None:
            await self._control.load(model)
        else:
            await self._install(model, content)
        return _reply({})

    async def _install(self, model: str, content: bytes) -> None:
        async with self._control.staging() as staged:
            await staged.write(content)
            await self._control.install(model, staged, create="onnx")

    async def _unload(self, request: Request) -> Reply:
        self._access.require_change(request.scope)
        await self._read(request, _LoadRequest)  # 'unload_dependents' changes nothing: no model depends on another
        await self._control.unload(request.path_params["model"])
        return _reply({})

    async def _read(self, request: Request, kind: type[_Read]) -> _Read:
        body = await read_body(request, self._max_call_bytes)
        try:
            return msgspec.json.decode(body or b"{}", type=kind)
        except UNREADABLE as error:
            raise InvalidInput(f"The body is not what this path takes: {error}.") from error


def _error(status: int, message: str, error: PlatformError | None) -> Reply:
    if isinstance(error, InvalidRequest):
        status = 400
    if isinstance(error, SwapFailed):
        status, message = 400, refusals(error.report)
    return _reply({"error": message}, status)


def _reply(answer: Mapping[str, Any], status: int = 200) -> Reply:
    return Reply(status, _encode(answer))


def _not_now(answer: Mapping[str, Any]) -> Reply:
    return _reply(answer, 503)._replace(headers=RETRY_LATER)


def _generation(model: str, version: str | None) -> int | None:
    if version is None:
        return None
    if not version.isdecimal() or len(version) > 18:
        raise UnknownEndpoint(f"{model!r} has no version {version!r}: versions are whole numbers.")
    return int(version)
