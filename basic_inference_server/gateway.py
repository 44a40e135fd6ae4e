"""The gateway, as the start scripts of the microservice gateway run it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import SecretStr

from basic_inference_server.logger import Logger
from contracts.errors import InvalidRequest
from online_gateway.config import OnlineGatewaySettings
from online_gateway.endpoint_config import GatewayFile, gateway_file
from online_gateway.main import run
from service_kit.settings import HeaderToken, Settings, load
from service_kit.token_file import token_in

_DATA_FOLDER = "_gateway"
"""In the application's folder; the gateway keeps what it must know again after a restart there."""


class _Tokens(Settings):
    """Where the environment has them, they are not made."""

    worker_token: HeaderToken | None = None
    admin_token: HeaderToken | None = None


class FlaskGateway:
    """Runs the gateway until it is told to stop; the constructor returns after that.

    Beyond loopback, stopping, starting and resizing take the admin token, which is made in ``admin_token`` in the data
    folder unless ADMIN_TOKEN says it. Workers need no ports: ``first_server_port`` is taken and means nothing.

    Raises
    ------
    InvalidRequest
        The logger's configuration has no CONFIG_ENDPOINTS, or a key of it is wrong.
    OSError
        The data folder cannot be written.
    SystemExit
        The port is taken, or the environment has a wrong setting; a line on stderr says which.
    """

    def __init__(
        self,
        log: Logger,
        workers_location: str | Path = "endpoints",
        workers_suffix: str | None = "Worker",
        host: str | None = None,
        port: int | None = None,
        first_server_port: int | None = None,  # noqa: ARG002
        server_names: Sequence[str] | None = None,
        server_execution_path: str = "/run",
        host_id: str | None = None,  # noqa: ARG002 - what the newest start scripts hand on
    ) -> None:
        data_dir = log.base_folder.resolve() / _DATA_FOLDER
        given = load(_Tokens)
        settings = load(
            OnlineGatewaySettings,
            data_dir=data_dir,
            worker_token=given.worker_token or SecretStr(token_in(data_dir / "worker_token")),
            admin_token=given.admin_token or SecretStr(token_in(data_dir / "admin_token")),
            host=host or "127.0.0.1",
            port=5002 if port is None else port,
        )
        file = _served(log, server_names).model_copy(
            update={
                "modules": _folder(workers_location),
                "class_suffix": workers_suffix or "",
                "run_path": f"/{server_execution_path.lstrip('/')}",
            }
        )
        run(settings, file=file)


def _served(log: Logger, names: Sequence[str] | None) -> GatewayFile:
    entries = log.config_data.get("CONFIG_ENDPOINTS", {})
    if names is not None and isinstance(entries, Mapping):
        entries = {name: entries.get(name, {}) for name in names}
    if not entries:
        raise InvalidRequest("There is no CONFIG_ENDPOINTS: give the Logger the config_file that has it.")
    return gateway_file({**log.config_data, "CONFIG_ENDPOINTS": entries}, log.root_folder.resolve())


def _folder(location: str | Path) -> Path:
    """The folder, which scripts also write as a package: ``some.endpoints``."""
    path = Path(location).expanduser()
    return (path if path.is_dir() else Path(str(location).replace(".", "/"))).resolve()
