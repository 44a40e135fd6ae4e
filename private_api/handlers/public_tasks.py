"""Routes of tasks that are relayed to users. The statuses 551 to 554 live on the polling route alone."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse

from contracts.errors import InvalidRequest, UnknownTask
from contracts.routes import MAX_WAIT_SECONDS, MODELS, TASK, TASK_CANCEL, TASK_LOGS, TASK_STATUS, TASKS
from contracts.task_state import POLL_NOT_FOUND, POLL_OUTPUT_MISSING, POLL_STATUS, TaskState
from contracts.tasks import FinishAnswer, TaskStatus
from private_api.handlers.downloads import BlobResponse
from private_api.handlers.services import Services, services_of
from private_api.handlers.uploads import FILE_FIELD, UPLOAD_BODY, receive_zip
from private_api.records import TaskRecord
from private_api.storage.files import BlobKind
from service_kit.http_app import error_response

router = APIRouter(tags=["tasks"])

Wait = Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS, description="Seconds to wait for the end of the task.")]


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


@router.get(TASK, summary="The output zip, or where the task stands (551 to 554)", response_class=Response)
@router.head(TASK, include_in_schema=False)
async def poll_task(request: Request, uid: str, wait: Wait = 0) -> Response:
    services = services_of(request)
    try:
        task = await (services.tasks.find_when_final(uid, wait) if wait else services.tasks.find(uid))
    except UnknownTask as error:
        return error_response(POLL_NOT_FOUND, error.message, error.code)
    if task.state is TaskState.FINISHED:
        return _output(services, task)
    return error_response(POLL_STATUS[task.state], _explanation(task), task.state.value)


def _output(services: Services, task: TaskRecord) -> Response:
    try:
        if task.output is not None:
            return BlobResponse(services.files, task.output, "output.zip")
    except FileNotFoundError:
        pass
    return error_response(
        POLL_OUTPUT_MISSING, "The task finished, but its output is gone; post the task again.", "output_missing"
    )


def _explanation(task: TaskRecord) -> str:
    match task.state:
        case TaskState.PENDING:
            return "The task waits for a consumer; ask again."
        case TaskState.RUNNING:
            return "The task runs; ask again."
        case _:
            return task.error or f"The task is {task.state}."


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
