"""TCP ports for servers that a test starts, kills and starts again at the same place."""

import random
import socket
from contextlib import suppress

_FROM, _TO = 20_000, 32_000
"""Below those that the kernel gives to outgoing connections; Linux begins at 32768."""
_untried = iter(random.sample(range(_FROM, _TO), _TO - _FROM))


def free_port() -> int:
    """A port on loopback that nobody listens on now, each time another one.

    No outgoing connection takes it while its server starts or is restarted; among the ports that the kernel gives, even
    the connection of a client that tries to reach that very port may.
    """
    for port in _untried:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"no port from {_FROM} to {_TO} is free")
