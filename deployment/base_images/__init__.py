"""Drop-in base images, made without a registry: from Debian packages, and for Traefik from a wheel.

Each module makes one image: its ``TAG`` and ``ensure(engine)``. The images take over as much of the official images'
interface as the deployment uses, so a compose file need not know which of the two it has.
"""


class BaseImageError(Exception):
    """The base image could not be made; the message says what to do."""
