"""What the routes delegate to; ``wiring`` fills it in when the app starts."""

from dataclasses import dataclass

from starlette.requests import Request

from contracts.archives import ArchiveLimits
from contracts.tasks import PlatformInfo
from private_api.services.attempts import Attempts
from private_api.services.models import Models
from private_api.services.offers import Offers
from private_api.services.presence import Presence
from private_api.services.status import StatusReader
from private_api.services.tasks import Tasks
from private_api.storage.files import BlobStore


@dataclass(frozen=True)
class Bounds:
    """How much an upload may bring."""

    upload_bytes: int
    output_bytes: int
    archive: ArchiveLimits


@dataclass(frozen=True)
class Services:
    """All that a request may need."""

    platform: PlatformInfo
    bounds: Bounds
    files: BlobStore
    models: Models
    tasks: Tasks
    attempts: Attempts
    offers: Offers
    presence: Presence
    status: StatusReader


def services_of(request: Request) -> Services:
    """The services of the app that the request came to."""
    services: Services = request.app.state.services
    return services
