"""The names of all images that a deployment needs.

Standard library alone: a host without a network, and so without our packages, loads images too.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deployment.variables import VARIABLES

ROOT = Path(__file__).parents[1]

SERVICES = ("public_api", "private_api", "job_consumer", "online_gateway", "online_worker")
_DEFAULTS = {variable.name: variable.default for variable in VARIABLES}


@dataclass(frozen=True)
class External:
    """An image that others make: the variable that names it, and our drop-in for sites that reach no registry."""

    variable: str
    drop_in: str

    @property
    def public(self) -> str:
        """The public image, which is the variable's default."""
        return _DEFAULTS[self.variable]

    def chosen(self, environment: Mapping[str, str]) -> str:
        """The image that this deployment uses."""
        return environment.get(self.variable) or self.public


EXTERNALS: Sequence[External] = (
    External("PYTHON_IMAGE", "inference-server/python-base:bookworm"),
    External("TRAEFIK_IMAGE", "inference-server/traefik-base:3"),
    External("POSTGRES_IMAGE", "inference-server/postgres-base:17"),
    External("RABBITMQ_IMAGE", "inference-server/rabbitmq-base:4"),
)


def version(environment: Mapping[str, str]) -> str:
    """The tag of the services' images."""
    return environment.get("VERSION") or _DEFAULTS["VERSION"]


def service_tag(service: str, environment: Mapping[str, str]) -> str:
    """The full name of a service's image, as docker-compose.yaml has it."""
    prefix = environment.get("IMAGES") or _DEFAULTS["IMAGES"]
    return f"{prefix}/{service.replace('_', '-')}:{version(environment)}"


def example_tags() -> list[str]:
    """The images of the example models, as their model.toml files name them."""
    files = sorted((ROOT / "models_examples").glob("*/model.toml"))
    return [str(tomllib.loads(path.read_text(encoding="utf-8"))["container_tag"]) for path in files]


def all_tags(environment: Mapping[str, str]) -> list[str]:
    """Everything that the stack and the examples need."""
    externals = [external.chosen(environment) for external in EXTERNALS]
    return [*externals, *(service_tag(service, environment) for service in SERVICES), *example_tags()]
