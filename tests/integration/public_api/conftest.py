from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import httpx
import pytest

from public_api.config import PublicApiSettings
from public_api.main import create_app
from public_api.relay import Deadlines
from tests.support.http_server import serving
from tests.support.platform import Service
from tests.support.ports import free_port
from tests.support.upstream import Script, Upstream
from tests.support.waiting import eventually

TOKEN = "a-token-of-the-services"
MAX_UPLOAD_BYTES = 256 * 2**20

RelayTo = Callable[..., AbstractContextManager[httpx.Client]]


@pytest.fixture(scope="session")
def _upstream() -> Iterator[tuple[Upstream, str]]:
    app = Upstream()
    with serving(app) as url:
        yield app, url


@pytest.fixture
def upstream(_upstream: tuple[Upstream, str]) -> Upstream:
    app, _ = _upstream
    app.seen.clear()
    app.ended_uploads = 0
    app.script = Script()
    return app


@pytest.fixture
def upstream_url(_upstream: tuple[Upstream, str]) -> str:
    return _upstream[1]


@pytest.fixture(scope="session")
def process(_upstream: tuple[Upstream, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The real process, ``python -m public_api``, in front of the scripted upstream."""
    port = free_port()
    environment = {
        "PRIVATE_API_URL": _upstream[1],
        "INTERNAL_TOKEN": TOKEN,
        "PORT": str(port),
        "MAX_UPLOAD_BYTES": str(MAX_UPLOAD_BYTES),
        "ALLOW_PUBLIC_POST_MODEL": "true",
        "LOG_FORMAT": "json",
    }
    service = Service("public_api", "public_api", environment, tmp_path_factory.mktemp("public_api") / "log")
    service.url = f"http://127.0.0.1:{port}"  # type: ignore[attr-defined]
    try:
        eventually(lambda: _answers(service.url), within=60)  # type: ignore[attr-defined]
        yield service
    finally:
        service.stop()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url + "/health/live").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def client(process: Service, upstream: Upstream) -> Iterator[httpx.Client]:
    """A client of the real process."""
    with httpx.Client(base_url=process.url, timeout=30, trust_env=False) as client:  # type: ignore[attr-defined]
        yield client


@pytest.fixture
def relay_to() -> RelayTo:
    """Another relay, in this process, to any upstream: with settings and deadlines of the test's choice."""

    @contextmanager
    def relay(url: str, deadlines: Deadlines | None = None, **settings: object) -> Iterator[httpx.Client]:
        app = create_app(
            PublicApiSettings(private_api_url=url, internal_token=TOKEN, **settings), deadlines or Deadlines()
        )
        with serving(app) as base, httpx.Client(base_url=base, timeout=30, trust_env=False) as client:
            yield client

    return relay
