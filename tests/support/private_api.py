"""private_api in the test's process, over real HTTP, spoken to as public_api and the consumers do."""

import asyncio
import hashlib
import io
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr
from sqlalchemy import text

from contracts import routes
from contracts.tasks import Outcome
from private_api.config import PrivateApiSettings
from private_api.main import build_app
from private_api.wiring import Wiring
from tests.support.http_server import serving

TOKEN = "a-token-for-tests"

MakeApi = Callable[..., "Api"]


def make_zip(files: Mapping[str, bytes] = {"a/b.txt": b"hello"}) -> bytes:
    """A zip of these names and bytes; the same bytes at any time of day."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)  # unlike a bare name, it carries no time of now
            entry.external_attr = 0o600 << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return target.getvalue()


def settings(database_url: str, data_dir: Path, **others: Any) -> PrivateApiSettings:
    """Settings of a test; the disk of a test machine may be nearly full."""
    return PrivateApiSettings(
        database_url=SecretStr(database_url),
        data_dir=data_dir,
        internal_token=SecretStr(TOKEN),
        **{"min_free_bytes": 0, **others},
    )


class Api:
    """One running private_api."""

    def __init__(self, url: str, wiring: Wiring, loop: asyncio.AbstractEventLoop) -> None:
        self.url = url
        self.wiring = wiring
        self.loop = loop
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)

    def register(self, model: str = "m", content: bytes | None = None, **query: Any) -> httpx.Response:
        files = None if content is None else {"zip_file": ("model.zip", content)}
        params = {"container_tag": "image:1", "human_readable_id": model, **query}
        return self.http.post(routes.MODELS, params=params, files=files)

    def post(self, zipped: bytes, model: str = "m") -> httpx.Response:
        return self.http.post(
            routes.TASKS, params={"model_human_readable_id": model}, files={"zip_file": ("input.zip", zipped)}
        )

    def new_task(self, model: str = "m") -> str:
        """A pending task of the model, which is registered if need be; its uid."""
        if self.http.get(routes.MODEL.format(human_readable_id=model)).status_code == 404:
            assert self.register(model).status_code == 200
        answer = self.post(make_zip(), model)
        assert answer.status_code == 200, answer.text
        uid: str = answer.json()
        return uid

    def poll(self, uid: str, **query: Any) -> httpx.Response:
        return self.http.get(routes.TASK.format(uid=uid), params=query)

    def status(self, uid: str) -> dict[str, Any]:
        answer = self.http.get(routes.TASK_STATUS.format(uid=uid))
        assert answer.status_code == 200, answer.text
        status: dict[str, Any] = answer.json()
        return status

    def claim(self, uid: str, consumer: str = "c1", has_gpu: bool = False) -> httpx.Response:
        return self.http.post(routes.CLAIM.format(uid=uid), json={"consumer": consumer, "has_gpu": has_gpu})

    def heartbeat(self, uid: str, attempt: int = 1, consumer: str = "c1") -> httpx.Response:
        path = routes.HEARTBEAT.format(uid=uid, attempt=attempt)
        return self.http.post(path, json={"consumer": consumer, "step": "run"})

    def put_output(self, uid: str, attempt: int = 1, consumer: str = "c1", body: bytes | None = None) -> httpx.Response:
        path = routes.OUTPUT.format(uid=uid, attempt=attempt)
        return self.http.put(path, params={"consumer": consumer}, content=make_zip() if body is None else body)

    def finish(
        self, uid: str, outcome: Outcome, attempt: int = 1, consumer: str = "c1", **others: Any
    ) -> httpx.Response:
        path = routes.FINISH.format(uid=uid, attempt=attempt)
        return self.http.post(path, json={"consumer": consumer, "outcome": outcome, **others})

    def succeed(self, uid: str, attempt: int = 1, consumer: str = "c1", body: bytes | None = None) -> httpx.Response:
        """Upload an output and report it."""
        sent = make_zip() if body is None else body
        assert self.put_output(uid, attempt, consumer, sent).status_code == 200
        output = {"sha256": hashlib.sha256(sent).hexdigest(), "size": len(sent)}
        return self.finish(uid, Outcome.SUCCEEDED, attempt, consumer, output=output)

    def lapse(self, uid: str) -> None:
        """The consumer of the running attempt falls silent: its lease is over, and that is noticed."""
        self.execute(f"UPDATE tasks SET lease_until = 1 WHERE uid = '{uid}' AND lease_until IS NOT NULL")
        self.look_at_leases()

    def look_at_leases(self) -> None:
        asyncio.run_coroutine_threadsafe(self.wiring.leases.look(), self.loop).result(60)

    def tidy(self) -> None:
        asyncio.run_coroutine_threadsafe(self.wiring.retention.remove_old_tasks(), self.loop).result(60)

    def execute(self, statement: str) -> None:
        self.wiring.database.write_sync(lambda connection: connection.execute(text(statement)))

    def files(self) -> list[str]:
        """All stored and half-stored files."""
        root = self.wiring.files.path("")
        return sorted(
            str(path.relative_to(root))
            for folder in ("inputs", "outputs", "models", "tmp")
            for path in (root / folder).iterdir()
        )

    def close(self) -> None:
        self.http.close()


@contextmanager
def running(given: PrivateApiSettings) -> Iterator[Api]:
    """private_api with these settings, until the block ends."""
    wiring = Wiring(given)
    app = build_app(given.internal_token, lambda: wiring)
    with serving(app) as url:
        api = Api(url, wiring, app.state.loop)
        try:
            yield api
        finally:
            api.close()


@contextmanager
def api_maker(database_url: str, data_dir: Path) -> Iterator[MakeApi]:
    """Makes services with settings of the test's choice; all stop at the end."""
    with ExitStack() as stack:
        yield lambda **others: stack.enter_context(running(settings(database_url, data_dir, **others)))
