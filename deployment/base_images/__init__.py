"""Drop-in base images, made without a registry: from Debian packages, and for Traefik from a wheel.

Each module makes one image: its ``TAG`` and ``ensure(engine)``. The images take over as much of the official images'
interface as the deployment uses, so a compose file need not know which of the two it has.
"""

from dataclasses import dataclass
from enum import StrEnum

UPDATES_LABEL = "inference-server.updates"
"""Label of an image of Debian packages, and of all that is built on it; its values are :class:`Updates`."""


class Updates(StrEnum):
    """What a file tree got beyond the main archive of its suite."""

    SECURITY = "security"
    """All that Debian's security archive offered when the image was made."""
    NONE = "none"


@dataclass(frozen=True)
class Mirrors:
    """Where Debian packages come from."""

    main: str | None = None
    """None: debootstrap's own default."""
    security: str | None = None
    """Of the security archive; None: the one that this machine's apt has in its sources."""


DEFAULT_MIRRORS = Mirrors()


class BaseImageError(Exception):
    """The base image could not be made; the message says what to do."""
