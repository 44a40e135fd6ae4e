"""The repository's own sources, as the rules of this folder look at them."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRODUCT = (
    "contracts",
    "service_kit",
    "public_api",
    "private_api",
    "job_consumer",
    "online_gateway",
    "online_worker",
    "basic_inference_server",
    "inference_client",
    "standalone",
)


@cache
def tree(path: Path) -> ast.Module:
    """The parsed module."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def modules(*folders: str) -> Iterator[tuple[str, ast.Module]]:
    """Path from the root, and syntax tree, of each module below the folders."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), tree(path)
