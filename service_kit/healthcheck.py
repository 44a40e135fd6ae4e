"""``python -m service_kit.healthcheck URL``: status 0 where the URL answers 2xx within three seconds, else 1 and why.

For the health check of a container, which has no curl. It needs the standard library alone, starts fast, and asks
directly: the proxies of the environment are for the way out, not for this host. A redirect is no answer.
"""

import http.client
import signal
import sys
from types import FrameType
from urllib.parse import urlsplit

DEADLINE_SECONDS = 3.0
"""For everything together, from the connection to the status line."""


def trouble_of(url: str) -> str | None:
    """What is wrong with what answers there; None when nothing is. Each single wait is bounded by the deadline."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        return "is no address that can be asked; write http://host:port/path"
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=DEADLINE_SECONDS)
    try:
        connection.request("GET", parts.path or "/", headers={"Connection": "close"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()
    return None if 200 <= status < 300 else f"answered {status}"


def _too_late(_: int, __: FrameType | None) -> None:
    raise TimeoutError(f"no answer within {DEADLINE_SECONDS:g} s")


def main(arguments: list[str]) -> int:
    """Ask; the exit status. One that answers in drops does not stretch the deadline."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m service_kit.healthcheck URL\n")
        return 1
    signal.signal(signal.SIGALRM, _too_late)
    signal.setitimer(signal.ITIMER_REAL, DEADLINE_SECONDS)
    try:
        trouble = trouble_of(arguments[0])
    except ValueError as error:
        trouble = str(error)  # a port that is no number, brackets that do not match
    if trouble is None:
        return 0
    sys.stderr.write(f"{arguments[0]}: {trouble}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
