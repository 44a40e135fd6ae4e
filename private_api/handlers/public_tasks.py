"""Routes of tasks that are relayed to users. The statuses 551 to 554 live on the polling route alone."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from starlette.routing import Route

from contracts.errors import InvalidRequest, UnknownTask
from contracts.routes import MAX_WAIT_SECONDS, MODELS, TASK, TASK_CANCEL, TASK_LOGS, TASK_STATUS, TASKS
from contracts.task_state import POLL_NOT_FOUND, POLL_OUTPUT_MISSING, POLL_PENDING, POLL_STATUS, TaskState
from contracts.tasks import FinishAnswer, TaskStatus
from private_api.handlers.downloads import BlobResponse
from private_api.handlers.services import Services, services_of
from private_api.handlers.uploads import FILE_FIELD, UPLOAD_BODY, receive_zip
from private_api.records import Blob
from private_api.storage.files import BlobKind
from service_kit.http_app import error_response

router = APIRouter(tags=["tasks"])

# Answers that say the same of every task; they hold no state and are sent again and again.
_LIVE = {
    TaskState.PENDING: error_response(POLL_PENDING, "The task waits for a consumer; ask again.", "pending"),
    TaskState.RUNNING: error_response(POLL_PENDING, "The task runs; ask again.", "running"),
}
_NOT_FOUND = error_response(POLL_NOT_FOUND, "No task has this uid; it was deleted, or never was.", UnknownTask.code)
_OUTPUT_MISSING = error_response(
    POLL_OUTPUT_MISSING, "The task finished, but its output is gone; post the task again.", "output_missing"
)


@router.post(TASKS, summary="Queue a task; the answer is its uid", openapi_extra=UPLOAD_BODY)
@router.post(TASKS.rstrip("/"), include_in_schema=False)
async def post_task(
    request: Request, model_human_readable_id: str | None = None, container_tag: str | None = None
) -> str:
    if container_tag is not None:
        raise InvalidRequest(f"container_tag belongs to a model, and models are posted to {MODELS}, not here.")
    if not model_human_readable_id:
        raise InvalidRequest("The query field model_human_readable_id is missing; name a registered model.")
    services = services_of(request)
    model = await services.models.find(model_human_readable_id)
    blob = await receive_zip(request, services, BlobKind.INPUT)
    if blob is None:
        raise InvalidRequest(f"The form has no file {FILE_FIELD!r}; send multipart/form-data with the zip in it.")
    return await services.tasks.post(model, blob)


async def poll_task(request: Request) -> Response:
    return await answer_poll(request, request.path_params["uid"])


async def answer_poll(request: Request, uid: str) -> Response:
    services = services_of(request)
    standing = await services.tasks.poll(uid, _wait_of(request))
    if standing is None:
        return _NOT_FOUND
    if standing.state is TaskState.FINISHED:
        return _output(services, standing.output)
    if standing.state in _LIVE:
        return _LIVE[standing.state]
    detail = standing.error or f"The task is {standing.state}."
    return error_response(POLL_STATUS[standing.state], detail, standing.state.value)


POLL_ROUTE = Route(TASK, poll_task, methods=["GET", "HEAD"])
"""A plain route, to be looked at first: FastAPI's analysis of a request would cost more than all the rest of a poll."""


def _wait_of(request: Request) -> float:
    given = request.query_params.get("wait", "0") if request.scope["query_string"] else "0"
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1
    if not 0 <= seconds <= MAX_WAIT_SECONDS:
        raise InvalidRequest(f"wait is {given!r}; give 0 to {MAX_WAIT_SECONDS} seconds.")
    return seconds


def _output(services: Services, output: Blob | None) -> Response:
    try:
        return _OUTPUT_MISSING if output is None else BlobResponse(services.files, output, "output.zip")
    except FileNotFoundError:
        return _OUTPUT_MISSING


@router.delete(TASK, summary="Cancel the task if it is live, and forget it")
async def delete_task(request: Request, uid: str) -> dict[str, str]:
    await services_of(request).tasks.delete(uid)
    return {"detail": "The task was deleted."}


@router.get(TASK_STATUS, summary="State, position, attempts and timings")
async def get_status(request: Request, uid: str) -> TaskStatus:
    return await services_of(request).status.read(uid)


@router.get(TASK_LOGS, summary="The end of the container's log", response_class=PlainTextResponse)
async def get_logs(request: Request, uid: str) -> str:
    return await services_of(request).tasks.log_of(uid)


@router.post(TASK_CANCEL, summary="Cancel the task and keep its record")
async def cancel_task(request: Request, uid: str) -> FinishAnswer:
    return FinishAnswer(state=await services_of(request).tasks.cancel(uid))
