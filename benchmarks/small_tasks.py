"""A small task as a user's program sees it: one post, one waiting poll that brings the output."""

import time
from pathlib import Path

import httpx

from benchmarks.surroundings import MODEL
from contracts import routes
from contracts.task_state import POLL_PENDING

_LONGEST_SECONDS = 120.0


class SmallTasks:
    """Posts and fetches over one kept connection; use one per thread and close it."""

    def __init__(self, url: str, zip_path: Path) -> None:
        self._zip = zip_path.read_bytes()
        self._http = httpx.Client(base_url=url, timeout=90, trust_env=False)

    def post(self) -> str:
        """Queue one; its uid."""
        files = {"zip_file": ("input.zip", self._zip, "application/zip")}
        answer = self._http.post(routes.TASKS, params={"model_human_readable_id": MODEL}, files=files)
        uid: str = answer.raise_for_status().json()
        return uid

    def fetch(self, uid: str) -> bytes:
        """Wait for the output and download it."""
        end = time.monotonic() + _LONGEST_SECONDS
        while True:
            answer = self._http.get(routes.TASK.format(uid=uid), params={"wait": 60})
            if answer.status_code == 200:
                return answer.content
            if answer.status_code != POLL_PENDING or time.monotonic() > end:
                raise RuntimeError(f"a small task got {answer.status_code}: {answer.text}")

    def close(self) -> None:
        """Close the connection."""
        self._http.close()
