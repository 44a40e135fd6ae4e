"""One version of an endpoint's model, and what it is made with."""

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from contracts.errors import InvalidRequest
from online_gateway.repository.repository import Accepted


@dataclass(frozen=True)
class Recipe:
    """What every generation of an endpoint is made with."""

    endpoint: str
    pool: str
    engine: str
    config: dict[str, Any]
    """As ``Load.config``."""
    needs_content: bool = False
    """Whether there is no generation before the first file was installed."""
    module: Path | None = None
    """The Python file with the endpoint's class: another text makes another digest."""
    content: Path | None = None
    """The file of the generation that is there before any was installed."""


@dataclass(frozen=True)
class Generation:
    """One version; its content is a file and never in memory."""

    endpoint: str
    number: int
    digest: str
    """Identifies engine, configuration, module and content: what has the same digest is the same model."""
    label: str
    engine: str
    config: dict[str, Any]
    content: Path | None
    content_bytes: int | None


async def first_generation(recipe: Recipe) -> Generation | None:
    """What is there before anything was installed: generation 1, or None where the recipe needs a file for it.

    Raises
    ------
    InvalidRequest
        The recipe's file cannot be read.
    """
    if recipe.content is None:
        return None if recipe.needs_content else await new_generation(recipe, 1, "")
    try:
        sha256 = await asyncio.to_thread(_sha256, recipe.content)
        size = recipe.content.stat().st_size
    except OSError as error:
        raise InvalidRequest(f"CONTENT of {recipe.endpoint!r} cannot be read: {error}.") from error
    return await new_generation(
        recipe, 1, recipe.content.name, content=recipe.content, content_bytes=size, sha256=sha256
    )


async def new_generation(
    recipe: Recipe,
    number: int,
    label: str,
    *,
    content: Path | None = None,
    content_bytes: int | None = None,
    sha256: str | None = None,
) -> Generation:
    """A generation with this content."""
    digest = await asyncio.to_thread(_digest, recipe, sha256)
    return Generation(recipe.endpoint, number, digest, label, recipe.engine, recipe.config, content, content_bytes)


async def restored_generation(recipe: Recipe, accepted: Accepted, content: Path | None) -> Generation:
    """The accepted one, with the recipe as it is now: what the operator changed in the file counts after a restart."""
    return await new_generation(
        recipe,
        accepted.number,
        accepted.label,
        content=content,
        content_bytes=accepted.content_bytes,
        sha256=accepted.content_sha256,
    )


def _digest(recipe: Recipe, sha256: str | None) -> str:
    module = None
    if recipe.module is not None:
        try:
            module = _sha256(recipe.module)
        except OSError:
            module = "unreadable here"  # it may lie on the workers' hosts alone; a worker that lacks it says so
    whole = {"engine": recipe.engine, "config": recipe.config, "content": sha256, "module": module}
    return hashlib.sha256(msgspec.json.encode(whole, order="deterministic")).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
