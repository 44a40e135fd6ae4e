"""The real ``curl``, as the clients of older gateways call it."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

from tests.support.requirements import missing


@dataclass(frozen=True)
class CurlAnswer:
    """What it printed."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def curl(url: str, *options: str) -> CurlAnswer:
    """Call the URL with these options."""
    if shutil.which("curl") is None:
        missing("curl is not installed")
    command = ["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "60", "--include", *options, url]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert ran.returncode == 0, ran.stderr
    head, _, body = ran.stdout.replace("\r\n", "\n").partition("\n\n")
    while head.startswith("HTTP/1.1 100"):
        head, _, body = body.partition("\n\n")
    first, *lines = head.splitlines()
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return CurlAnswer(int(first.split()[1]), headers, body)


def post_json(url: str, document: object, *options: str) -> CurlAnswer:
    """Post the document as JSON."""
    return curl(url, "--header", "Content-Type: application/json", "--data", json.dumps(document), *options)
