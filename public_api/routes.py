"""The routes that users see; each names its path on private_api and says what it takes and answers."""

from datetime import timedelta
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.responses import Response

from contracts import routes
from contracts.errors import ErrorBody
from contracts.models import ModelView
from contracts.tasks import TaskStatus
from public_api.relay import Relay


def relay_of(request: Request) -> Relay:
    """The application's relay."""
    relay: Relay = request.app.state.relay
    return relay


RelayDep = Annotated[Relay, Depends(relay_of)]

WELCOME = "InferenceServer runs models on tasks. See /docs; post a zip to /api/tasks/ and poll /api/tasks/{uid}."


def _errors(**sentences: str) -> dict[int | str, dict[str, Any]]:
    return {int(code[1:]): {"description": text, "model": ErrorBody} for code, text in sentences.items()}


def _query(name: str, kind: str, description: str, *, required: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "required": required,
        "description": description,
        "schema": {"type": kind},
    }


def _multipart(*, required: bool) -> dict[str, Any]:
    file_field = {"type": "string", "contentMediaType": "application/zip", "description": "A zip archive."}
    schema = {"type": "object", "properties": {"zip_file": file_field}}
    return {
        "required": required,
        "content": {"multipart/form-data": {"schema": schema | ({"required": ["zip_file"]} if required else {})}},
    }


_MODEL_QUERY = [
    _query("container_tag", "string", "The container image to run.", required=True),
    _query("human_readable_id", "string", "The name that tasks use; unique.", required=True),
    _query("description", "string", "For people."),
    _query("model_available", "boolean", "Whether a zip_file comes along; must agree with the body."),
    _query("use_gpu", "boolean", "Run on a consumer with a GPU only."),
    _query("input_mountpoint", "string", "Default /input."),
    _query("output_mountpoint", "string", "Default /output."),
    _query("model_mountpoint", "string", "Default /model."),
    _query("timeout_seconds", "number", "Wall clock of one run."),
    _query("memory_bytes", "integer", "Memory, swap included."),
    _query("cpus", "number", "CPU cores."),
    _query("pids", "integer", "Processes and threads at once."),
    _query("shm_bytes", "integer", "Size of /dev/shm."),
    _query("network", "string", "'none', or 'bridge' where the operator allows it."),
    _query("capabilities", "string", "A Linux capability to keep, of those that the operator allows; repeatable."),
]

_AWAY = {"e503": "The platform cannot answer now; see Retry-After."}
_UPLOAD_ERRORS = {
    "e413": "The upload is larger than the limit.",
    "e415": "The upload is not a zip.",
    "e422": "The request is wrong, or the zip holds entries that are refused.",
    "e507": "The disk is full.",
} | _AWAY
_POLL_ERRORS = _errors(
    e551="Pending or running: ask again.",
    e552="Failed or cancelled; the body says why.",
    e553="Finished, but the output is gone.",
    e554="No such task.",
    **_AWAY,
)


def door(*, model_posts: bool) -> APIRouter:
    """All public routes; those that change models only where the operator allows it."""
    router = APIRouter()
    router.include_router(_welcome())
    router.include_router(_tasks(), tags=["tasks"])
    router.include_router(_task_details(), tags=["tasks"])
    router.include_router(_models(), tags=["models"])
    if model_posts:
        router.include_router(_model_changes(), tags=["models"])
    return router


def _welcome() -> APIRouter:
    router = APIRouter()

    @router.get("/", summary="A welcome; browsers are sent to the documentation")
    async def welcome(request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse("/docs", 303)
        return JSONResponse({"message": WELCOME})

    return router


def _tasks() -> APIRouter:
    router = APIRouter()

    @router.post(
        routes.TASKS,
        summary="Post a task: a zip for one model; the answer is the task's uid",
        response_model=str,
        responses=_errors(e404="No such model.", **_UPLOAD_ERRORS),
        openapi_extra={
            "parameters": [_query("model_human_readable_id", "string", "The model to run.", required=True)],
            "requestBody": _multipart(required=True),
        },
    )
    @router.post(routes.TASKS.rstrip("/"), include_in_schema=False)
    async def post_task(request: Request, relay: RelayDep) -> Response:
        return await relay.forward_upload(request, routes.TASKS)

    @router.get(
        routes.TASK,
        summary="Poll a task; once it is finished, the answer is the output zip",
        responses={200: {"content": {"application/zip": {}}, "description": "The output."}, **_POLL_ERRORS},
    )
    @router.head(routes.TASK, include_in_schema=False)
    async def poll_task(
        request: Request,
        relay: RelayDep,
        uid: str,
        wait: Annotated[
            float,
            Query(
                ge=0,
                le=routes.MAX_WAIT_SECONDS,
                description="Seconds to wait for a final state.",
            ),
        ] = 0,
    ) -> Response:
        return await relay.forward_poll(request, _task_path(routes.TASK, uid), timedelta(seconds=wait))

    @router.delete(routes.TASK, summary="Cancel a live task and delete it, with its files", responses=_errors(**_AWAY))
    async def delete_task(request: Request, relay: RelayDep, uid: str) -> Response:
        return await relay.forward(request, _task_path(routes.TASK, uid))

    return router


def _task_details() -> APIRouter:
    router = APIRouter()

    @router.get(
        routes.TASK_STATUS,
        summary="State, position in the queue, attempts, timings, error",
        response_model=TaskStatus,
        responses=_errors(e404="No such task.", **_AWAY),
    )
    async def task_status(request: Request, relay: RelayDep, uid: str) -> Response:
        return await relay.forward(request, _task_path(routes.TASK_STATUS, uid))

    @router.get(
        routes.TASK_LOGS,
        summary="The end of the model's output on stdout and stderr",
        responses=_errors(e404="No such task.", **_AWAY),
    )
    async def task_logs(request: Request, relay: RelayDep, uid: str) -> Response:
        return await relay.forward(request, _task_path(routes.TASK_LOGS, uid))

    @router.post(
        routes.TASK_CANCEL,
        summary="Cancel a live task and keep its record",
        responses=_errors(e404="No such task.", e409="The task is over.", **_AWAY),
    )
    async def cancel_task(request: Request, relay: RelayDep, uid: str) -> Response:
        return await relay.forward(request, _task_path(routes.TASK_CANCEL, uid))

    return router


def _models() -> APIRouter:
    router = APIRouter()

    @router.get(routes.MODELS, summary="All models", response_model=list[ModelView], responses=_errors(**_AWAY))
    @router.get(routes.MODELS.rstrip("/"), include_in_schema=False)
    async def list_models(request: Request, relay: RelayDep) -> Response:
        return await relay.forward(request, routes.MODELS)

    @router.get(
        routes.MODEL,
        summary="One model",
        response_model=ModelView,
        responses=_errors(e404="No such model.", **_AWAY),
    )
    async def get_model(request: Request, relay: RelayDep, human_readable_id: str) -> Response:
        return await relay.forward(request, _model_path(human_readable_id))

    return router


def _model_changes() -> APIRouter:
    router = APIRouter()

    @router.post(
        routes.MODELS,
        summary="Register a model, with or without a zip of static content",
        response_model=ModelView,
        responses=_errors(e409="The id is taken.", **_UPLOAD_ERRORS),
        openapi_extra={"parameters": _MODEL_QUERY, "requestBody": _multipart(required=False)},
    )
    @router.post(routes.MODELS.rstrip("/"), include_in_schema=False)
    async def post_model(request: Request, relay: RelayDep) -> Response:
        return await relay.forward_upload(request, routes.MODELS)

    @router.delete(
        routes.MODEL,
        summary="Remove a model that no live task needs",
        responses=_errors(e404="No such model.", e409="Live tasks need it.", **_AWAY),
    )
    async def delete_model(request: Request, relay: RelayDep, human_readable_id: str) -> Response:
        return await relay.forward(request, _model_path(human_readable_id))

    return router


def _task_path(template: str, uid: str) -> str:
    return template.format(uid=_quoted(uid))


def _model_path(human_readable_id: str) -> str:
    return routes.MODEL.format(human_readable_id=_quoted(human_readable_id))


def _quoted(part: str) -> str:
    """One part of a path, encoded so that it stays one: the dots too, for ``..`` must not climb."""
    return quote(part, safe="").replace(".", "%2E")
