"""Routes of models that are relayed to users."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field

from contracts.errors import InvalidRequest
from contracts.models import (
    DEFAULT_INPUT_MOUNTPOINT,
    DEFAULT_MODEL_MOUNTPOINT,
    DEFAULT_OUTPUT_MOUNTPOINT,
    HUMAN_READABLE_ID_PATTERN,
    MOUNTPOINT_PATTERN,
    ModelView,
    RequestedLimits,
)
from contracts.routes import MODEL, MODELS
from private_api.handlers.services import services_of
from private_api.handlers.uploads import FILE_FIELD, UPLOAD_BODY, receive_zip
from private_api.records import NewModel
from private_api.services.status import model_view
from private_api.storage.files import BlobKind

router = APIRouter(tags=["models"])

_LONGEST_TEXT = 10_000


class Registration(RequestedLimits):
    """The query of a registration."""

    container_tag: str = Field(pattern="^[!-~]+$", max_length=1024, description="The image, as docker pulls it.")
    human_readable_id: str = Field(pattern=HUMAN_READABLE_ID_PATTERN, description="The model's name; unique.")
    description: str | None = Field(default=None, max_length=_LONGEST_TEXT)
    model_available: bool | None = Field(default=None, description="Whether a zip comes along; by default, if it does.")
    use_gpu: bool = Field(default=False, description="Run only where there is a GPU.")
    input_mountpoint: str = Field(default=DEFAULT_INPUT_MOUNTPOINT, pattern=MOUNTPOINT_PATTERN)
    output_mountpoint: str = Field(default=DEFAULT_OUTPUT_MOUNTPOINT, pattern=MOUNTPOINT_PATTERN)
    model_mountpoint: str = Field(default=DEFAULT_MODEL_MOUNTPOINT, pattern=MOUNTPOINT_PATTERN)

    def model(self) -> NewModel:
        """What is to be registered."""
        return NewModel(
            human_readable_id=self.human_readable_id,
            description=self.description,
            container_tag=self.container_tag,
            use_gpu=self.use_gpu,
            input_mountpoint=self.input_mountpoint,
            output_mountpoint=self.output_mountpoint,
            model_mountpoint=self.model_mountpoint,
            limits=RequestedLimits(**{name: getattr(self, name) for name in RequestedLimits.model_fields}),
        )


@router.get(MODELS, summary="All registered models")
@router.get(MODELS.rstrip("/"), include_in_schema=False)
async def list_models(request: Request) -> list[ModelView]:
    return [model_view(model) for model in await services_of(request).models.list()]


@router.post(MODELS, summary="Register a model", openapi_extra=UPLOAD_BODY)
@router.post(MODELS.rstrip("/"), include_in_schema=False)
async def post_model(request: Request, query: Annotated[Registration, Query()]) -> ModelView:
    services = services_of(request)
    model = query.model()
    await services.models.check(model)
    content = await receive_zip(request, services, BlobKind.MODEL)
    if query.model_available is not None and query.model_available != (content is not None):
        await services.files.remove([content.name] if content else [])
        missing = f"model_available is true, but the form has no file {FILE_FIELD!r}; send it or say false."
        raise InvalidRequest(missing if content is None else "model_available is false, but a file came; say true.")
    return model_view(await services.models.register(model, content))


@router.get(MODEL, summary="One model")
async def get_model(request: Request, human_readable_id: str) -> ModelView:
    return model_view(await services_of(request).models.find(human_readable_id))


@router.delete(MODEL, summary="Delete a model that no live task uses, and its content")
async def delete_model(request: Request, human_readable_id: str) -> dict[str, str]:
    await services_of(request).models.delete(human_readable_id)
    return {"detail": f"The model {human_readable_id!r} was deleted."}
