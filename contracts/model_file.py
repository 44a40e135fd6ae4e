"""``model.toml``: what a model folder says of itself, read by the client, the process runner and the build script."""

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts.errors import InvalidRequest
from contracts.models import (
    DEFAULT_INPUT_MOUNTPOINT,
    DEFAULT_MODEL_MOUNTPOINT,
    DEFAULT_OUTPUT_MOUNTPOINT,
    HUMAN_READABLE_ID_PATTERN,
    MOUNTPOINT_PATTERN,
    RequestedLimits,
)

MODEL_FILE = "model.toml"


class ModelFile(BaseModel):
    """One model folder: how it is registered, and how its program is run where there are no containers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    human_readable_id: str = Field(pattern=HUMAN_READABLE_ID_PATTERN)
    container_tag: str = Field(min_length=1)
    description: str = ""
    gpu: bool = False
    command: tuple[str, ...] = Field(
        min_length=1,
        description="The image's command; the process runner runs it in this folder, with its own 'python'.",
    )
    requires: tuple[str, ...] = Field(default=(), description="Python modules that must be importable to run it here.")
    content_script: str | None = Field(
        default=None, description="Python script in this folder that writes the model zip to the path it is given."
    )
    sample_script: str | None = Field(
        default=None, description="Python script in this folder that writes a sample input zip to the path it is given."
    )
    input_mountpoint: str = Field(default=DEFAULT_INPUT_MOUNTPOINT, pattern=MOUNTPOINT_PATTERN)
    output_mountpoint: str = Field(default=DEFAULT_OUTPUT_MOUNTPOINT, pattern=MOUNTPOINT_PATTERN)
    model_mountpoint: str = Field(default=DEFAULT_MODEL_MOUNTPOINT, pattern=MOUNTPOINT_PATTERN)
    limits: RequestedLimits = RequestedLimits()

    @classmethod
    def load(cls, folder: Path) -> "ModelFile":
        """Read the folder's ``model.toml``.

        Raises
        ------
        InvalidRequest
            The file is missing, is not TOML, or a field is wrong; the message names the file and the field.
        """
        path = folder / MODEL_FILE
        try:
            return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise InvalidRequest(f"{path} does not exist; a model folder needs one.") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"{path} is not TOML: {error}") from error
        except ValidationError as error:
            mistakes = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise InvalidRequest(f"{path}: {mistakes}") from error
