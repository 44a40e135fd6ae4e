"""The connection to the Docker engine: made at first use, every call with a deadline, every error one of ours."""

import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http import HTTPStatus
from typing import Any

import docker
from docker.errors import APIError, DockerException
from docker.utils import kwargs_from_env
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from job_consumer.runner.base import RunnerError

ENGINE_ERRORS = (DockerException, RequestException, HTTPError)
"""All that a call of the SDK, or reading its stream, may raise."""

CALL_TIMEOUT = timedelta(seconds=120)
"""How long the engine may be silent in one call; creating and removing are slow on a busy disk."""
_PROMPT = timedelta(seconds=5)
_POOL_SIZE = 16
_FAULTS_OF_IMAGES = ("no matching entries in", "not a directory")
"""What the engine says, as an error of its own, where an image names a user that it does not have, or has a file where
a folder is to be mounted."""

_UNIX = "unix://"
_DEFAULT_ADDRESS = "unix:///var/run/docker.sock"


class BoundedClient(docker.APIClient):
    """The SDK waits for ever in some of its calls (pulls among them); here silence always ends."""

    def request(self, *args: Any, **kwargs: Any) -> Any:
        """Send a request of the session that the client is."""
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = CALL_TIMEOUT.total_seconds()
        return super().request(*args, **kwargs)

    def _check_is_tty(self, container: str) -> bool:  # noqa: ARG002
        """Spare the SDK a question before each log: no container here has a terminal."""
        return False


class Engine:
    """One engine, the environment's (DOCKER_HOST and its kin) unless an address is given; threads may share it."""

    def __init__(self, address: str | None = None) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._client: BoundedClient | None = None
        self._cores: int | None = None

    @property
    def cores(self) -> int:
        """How many CPU cores the engine's host has; asked once.

        Raises
        ------
        RunnerError
            The engine does not answer.
        """
        if self._cores is None:
            with engine_errors("tell its CPU cores"):
                self._cores = int(self.api.info()["NCPU"])
        return self._cores

    @property
    def api(self) -> BoundedClient:
        """The SDK's client.

        Raises
        ------
        RunnerError
            The engine does not answer.
        """
        with self._lock:
            if self._client is None:
                self._client = self._connect(CALL_TIMEOUT)
            return self._client

    def check(self) -> None:
        """Pass when the engine answers.

        Raises
        ------
        RunnerError
            It does not.
        """
        with engine_errors("answer"):
            self.api.ping()

    def check_afresh(self) -> None:
        """Pass when the engine answers a new connection: one that is shutting down still serves the old ones.

        Raises
        ------
        RunnerError
            It does not.
        """
        self._connect(_PROMPT).close()

    @contextmanager
    def archive(self, container: str, path: str) -> Iterator[Iterator[bytes]]:
        """The tar of a path in a container, started or not.

        Leaving early breaks the connection: the engine would go on packing, and keep the container from being removed.

        Raises
        ------
        NotFound, APIError
            There is no such path, or it cannot be read.
        """
        stream, _ = self.api.get_archive(container, path)
        first = next(stream, b"")  # closing reaches the connection only once reading has begun
        try:
            yield itertools.chain([first], stream)
        finally:
            stream.close()

    def close(self) -> None:
        """Close the connections; the next use opens new ones."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _connect(self, timeout: timedelta) -> BoundedClient:
        settings = kwargs_from_env()
        if self._address is not None:
            settings["base_url"] = self._address
        with engine_errors("answer"):
            _knock(settings.get("base_url", _DEFAULT_ADDRESS))
            return BoundedClient(
                **settings, version="auto", timeout=int(timeout.total_seconds()), max_pool_size=_POOL_SIZE
            )


def _knock(address: str) -> None:
    """Notice a socket that nobody listens on before the SDK does, which forgets to close its end of it."""
    if not address.startswith(_UNIX):
        return
    with socket.socket(socket.AF_UNIX) as knock:
        knock.settimeout(_PROMPT.total_seconds())
        try:
            knock.connect(address.removeprefix(_UNIX))
        except OSError as error:
            raise RunnerError(f"The Docker engine did not answer: {address}: {error}") from error


@contextmanager
def engine_errors(doing: str) -> Iterator[None]:
    """Turn the SDK's errors into RunnerError: "The Docker engine did not {doing}: …"."""
    try:
        yield
    except ENGINE_ERRORS as error:
        raise RunnerError(f"The Docker engine did not {doing}: {explanation(error)}") from error


def explanation(error: Exception) -> str:
    """What the engine said, in one line."""
    said = error.explanation if isinstance(error, APIError) and error.explanation else str(error)
    return " ".join(str(said).split())


def status_of(error: Exception) -> int | None:
    """The HTTP status of an answer of the engine; None when it did not answer."""
    return error.status_code if isinstance(error, APIError) else None


def is_images_fault(error: Exception) -> bool:
    """Whether a container that exists cannot be filled or started because of its image."""
    if status_of(error) in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
        return False
    return is_refusal(error) or any(words in explanation(error) for words in _FAULTS_OF_IMAGES)


def is_refusal(error: Exception) -> bool:
    """Whether the engine answered and found fault with what was asked, not with itself."""
    status = status_of(error)
    return status is not None and HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
