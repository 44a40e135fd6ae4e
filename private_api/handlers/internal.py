"""Routes of the consumers; never relayed to users."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import AfterValidator

from contracts import routes
from contracts.errors import UnknownModel, UnknownTask
from contracts.models import BlobRef
from contracts.queue import queues_of
from contracts.tasks import (
    AttemptRef,
    Claim,
    ClaimRequest,
    ConsumerPresence,
    FinishAnswer,
    FinishReport,
    HeartbeatAnswer,
    HeartbeatRequest,
    PlatformInfo,
    StagingOffer,
    TaskOffer,
)
from private_api.handlers.downloads import BlobResponse
from private_api.handlers.services import services_of
from private_api.handlers.uploads import refuse_early
from private_api.records import Blob
from service_kit.multipart import body

router = APIRouter(tags=["internal"])

_LONGEST_CONSUMER = 128


def check_consumer(name: str) -> str:
    """A consumer's id as the database takes it."""
    if not 0 < len(name) <= _LONGEST_CONSUMER or not name.isprintable():
        raise ValueError(f"a consumer's id has 1 to {_LONGEST_CONSUMER} printable characters")
    return name


Consumer = Annotated[str, AfterValidator(check_consumer)]
Attempt = Annotated[int, Path(ge=1, lt=2**31)]
Wait = Annotated[float, Query(ge=0, le=routes.MAX_WAIT_SECONDS)]


class CheckedClaim(ClaimRequest):
    """A claim whose consumer the database takes."""

    consumer: Consumer


@router.get(routes.PLATFORM, summary="What a consumer must know before it starts")
async def get_platform(request: Request) -> PlatformInfo:
    return services_of(request).platform


@router.put(routes.CONSUMER, summary="A consumer says that it lives", status_code=204)
async def put_consumer(request: Request, consumer: Consumer, presence: ConsumerPresence) -> None:
    services_of(request).presence.report(consumer, presence)


@router.get(routes.QUEUE_NEXT, summary="Wait for a task to claim", response_model=TaskOffer)
async def next_task(
    request: Request, consumer: Consumer, has_gpu: bool, takes_cpu: bool = True, wait: Wait = 0
) -> TaskOffer | Response:
    queues = queues_of(has_gpu, takes_cpu)
    offer = await services_of(request).offers.next(consumer, queues, wait, request.is_disconnected)
    return offer or Response(status_code=204)


@router.get(routes.QUEUE_PEEK, summary="The task to stage ahead", response_model=StagingOffer)
async def peek_task(
    request: Request, consumer: Consumer, has_gpu: bool, takes_cpu: bool = True
) -> StagingOffer | Response:
    offer = await services_of(request).offers.peek(consumer, queues_of(has_gpu, takes_cpu))
    return offer or Response(status_code=204)


@router.post(routes.CLAIM, summary="Take a task")
async def claim_task(request: Request, uid: str, claim: CheckedClaim) -> Claim:
    return await services_of(request).attempts.claim(uid, claim.consumer, has_gpu=claim.has_gpu)


@router.get(routes.TASK_INPUT, summary="A task's input zip", response_class=Response)
async def get_input(request: Request, uid: str) -> BlobResponse:
    services = services_of(request)
    task = await services.tasks.find(uid)
    try:
        if task.input_name is not None:
            blob = Blob(task.input_name, task.input.sha256, task.input.size)
            return BlobResponse(services.files, blob, "input.zip")
    except FileNotFoundError:
        pass
    raise UnknownTask("The task's input is gone.")


@router.get(routes.MODEL_CONTENT_HASHES, summary="Hashes of all model content that may still be needed")
async def get_content_hashes(request: Request) -> Sequence[str]:
    return await services_of(request).models.content_hashes()


@router.get(routes.MODEL_CONTENT, summary="A model's content zip", response_class=Response)
async def get_content(request: Request, uid: str) -> BlobResponse:
    services = services_of(request)
    content = await services.models.content(uid)
    try:
        return BlobResponse(services.files, content, "model.zip")
    except FileNotFoundError as error:
        raise UnknownModel("The model's content is gone; register the model anew.") from error


@router.post(routes.HEARTBEAT, summary="An attempt says that it lives")
async def heartbeat(request: Request, uid: str, attempt: Attempt, beat: HeartbeatRequest) -> HeartbeatAnswer:
    return await services_of(request).attempts.heartbeat(uid, attempt, beat.consumer, beat.step)


@router.put(routes.OUTPUT, summary="An attempt's output zip, raw")
async def put_output(request: Request, uid: str, attempt: Attempt, consumer: Consumer) -> BlobRef:
    services = services_of(request)
    most_bytes = services.bounds.output_bytes
    refuse_early(request, services, most_bytes)
    return await services.attempts.put_output(uid, attempt, consumer, body(request), most_bytes)


@router.post(routes.FINISH, summary="An attempt reports its end")
async def finish(request: Request, uid: str, attempt: Attempt, report: FinishReport) -> FinishAnswer:
    return FinishAnswer(state=await services_of(request).attempts.finish(uid, attempt, report))


@router.post(routes.STALE_ATTEMPTS, summary="Which of these attempts nobody waits for")
async def stale_attempts(request: Request, attempts: list[AttemptRef]) -> list[AttemptRef]:
    return await services_of(request).attempts.stale(attempts)
