"""The calls about models, one method per route."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

from contracts import routes
from contracts.models import (
    DEFAULT_INPUT_MOUNTPOINT,
    DEFAULT_MODEL_MOUNTPOINT,
    DEFAULT_OUTPUT_MOUNTPOINT,
    ModelView,
    RequestedLimits,
)
from inference_client.errors import RequestRefused
from inference_client.transport import Transport, parsed
from inference_client.uploading import MultipartFile, OnProgress

_STORED_WITHIN = timedelta(minutes=11)
_CLOSED_STATUSES = frozenset({404, 405})


@dataclass(frozen=True)
class Mountpoints:
    """Where the container finds its folders."""

    input: str = DEFAULT_INPUT_MOUNTPOINT
    output: str = DEFAULT_OUTPUT_MOUNTPOINT
    model: str = DEFAULT_MODEL_MOUNTPOINT


@dataclass(frozen=True)
class Registration:
    """A model as it is registered."""

    human_readable_id: str
    container_tag: str
    description: str = ""
    use_gpu: bool = False
    limits: RequestedLimits = RequestedLimits()  # noqa: RUF009 - frozen
    mountpoints: Mountpoints = Mountpoints()
    content: Path | None = None

    def as_query(self) -> dict[str, str | list[str]]:
        """The fields as the route takes them; limits that were not asked for are left to the operator's defaults."""
        query: dict[str, str | list[str]] = {
            "human_readable_id": self.human_readable_id,
            "container_tag": self.container_tag,
            "use_gpu": str(self.use_gpu),
            "model_available": str(self.content is not None),
            "input_mountpoint": self.mountpoints.input,
            "output_mountpoint": self.mountpoints.output,
            "model_mountpoint": self.mountpoints.model,
        }
        if self.description:
            query["description"] = self.description
        for name, value in self.limits.model_dump(exclude_none=True).items():
            query[name] = [str(item) for item in value] if isinstance(value, tuple) else str(value)
        return query


class ModelCalls:
    """Models of one server."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def all(self) -> list[ModelView]:
        """All registered models."""
        return parsed(list[ModelView], self._transport.request("GET", routes.MODELS))

    def get(self, human_readable_id: str) -> ModelView:
        """One model."""
        return parsed(ModelView, self._transport.request("GET", _path(human_readable_id)))

    def add(self, registration: Registration, on_progress: OnProgress | None) -> ModelView:
        """Register a model, with its content where it has some.

        Raises
        ------
        RequestRefused
            409 the id is taken, 422 a field is wrong, 404 or 405 where the operator lets nobody register models.
        """
        body = MultipartFile(registration.content, on_progress) if registration.content is not None else None
        try:
            answer = self._transport.request(
                "POST",
                routes.MODELS,
                query=registration.as_query(),
                headers=body.headers if body else None,
                content=body,
                answer_within=_STORED_WITHIN,
            )
        except RequestRefused as error:
            raise _told_when_closed(error) from error
        return parsed(ModelView, answer)

    def remove(self, human_readable_id: str) -> None:
        """Remove a model that no live task needs."""
        try:
            self._transport.request("DELETE", _path(human_readable_id))
        except RequestRefused as error:
            raise _told_when_closed(error) from error


def _path(human_readable_id: str) -> str:
    return routes.MODEL.format(human_readable_id=quote(human_readable_id, safe=""))


def _told_when_closed(error: RequestRefused) -> RequestRefused:
    """A route that is absent says nothing of the reason; this sentence does."""
    if error.status not in _CLOSED_STATUSES or error.code != "http_error":
        return error
    sentence = "This server lets nobody change models over HTTP (ALLOW_PUBLIC_POST_MODEL is off)."
    return RequestRefused(error.status, "models_closed", sentence)
