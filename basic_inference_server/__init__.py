"""The programmatic names of the microservice gateway, so that endpoint modules written to them run here unchanged.

It is a facade: :class:`FlaskWorker` is an endpoint of online_worker, :class:`FlaskGateway` runs online_gateway.
"""

from typing import TYPE_CHECKING, Any

from basic_inference_server.logger import Logger
from basic_inference_server.packages import get_packages
from basic_inference_server.worker import FlaskWorker
from service_kit.version import VERSION as LIB_VER

if TYPE_CHECKING:
    from basic_inference_server.gateway import FlaskGateway

__all__ = ["LIB_VER", "FlaskGateway", "FlaskWorker", "Logger", "get_packages"]


def __getattr__(name: str) -> Any:
    """The gateway, once somebody asks for it: a worker process has no use for its web server."""
    if name == "FlaskGateway":
        from basic_inference_server.gateway import FlaskGateway

        return FlaskGateway
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
