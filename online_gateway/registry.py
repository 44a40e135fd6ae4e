"""Which endpoints there are: those of the configuration file, and those that uploads made."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from contracts.errors import Conflict, InvalidRequest
from contracts.inference import ENDPOINT_NAME_PATTERN, MODELHOST_POOL, UnknownEndpoint
from online_gateway.endpoint_config import (
    POOL_ECHO,
    RESERVED_NAMES,
    EndpointConfig,
    EngineName,
    GatewayFile,
    endpoint_config,
)


@dataclass
class Entry:
    """One endpoint, and what was decided about it since the start."""

    config: EndpointConfig
    description: str
    is_uploaded: bool = False
    is_pending: bool = False
    """Whether an upload makes it right now, and no generation was accepted yet."""
    is_stopped: bool = False
    """Switched off, in the file or by a call: it has no local workers and answers nothing."""
    trouble: str = ""
    """What is wrong with its configuration, so that it cannot be served; '' for nothing."""

    @property
    def name(self) -> str:
        """Its name."""
        return self.config.name

    @property
    def is_hidden(self) -> bool:
        """Whether it is the gateway's own, or not there yet."""
        return self.name == POOL_ECHO or self.is_pending

    def as_kept(self) -> dict[str, Any]:
        """What is kept of an endpoint that an upload made."""
        return {"ENGINE": self.config.engine, "DESCRIPTION": self.description}


class Registry:
    """Endpoints by name."""

    def __init__(self, file: GatewayFile) -> None:
        self.file = file
        """The configuration that it began with."""
        self._entries: dict[str, Entry] = {}
        for config in file.endpoints:
            if not config.is_support and not config.is_pool:
                self._add(Entry(config, config.description, is_stopped=config.is_disabled))
        echo = endpoint_config(POOL_ECHO, {"ENGINE": "echo", "NR_WORKERS": 0})
        self._add(Entry(echo, "Shows which model host answers."))

    def _add(self, entry: Entry) -> None:
        self._entries[entry.name] = entry

    def __iter__(self) -> Iterator[Entry]:
        """All, the hidden ones too, by name."""
        return iter([self._entries[name] for name in sorted(self._entries)])

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def get(self, name: str) -> Entry:
        """The endpoint.

        Raises
        ------
        UnknownEndpoint
            The message names those there are.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise self.unknown(name)
        return entry

    def unknown(self, name: str) -> UnknownEndpoint:
        """The error that says so."""
        known = ", ".join(entry.name for entry in self if not entry.is_hidden)
        return UnknownEndpoint(f"There is no endpoint {name[:128]!r}; there are: {known or 'none yet'}.")

    def add_kept(self, name: str, kept: Mapping[str, Any]) -> Entry:
        """An endpoint that an upload made before, from :meth:`Entry.as_kept`.

        Raises
        ------
        InvalidRequest, Conflict
            As below; or what was kept is spoilt.
        """
        config = endpoint_config(name, kept)
        return self.add_uploaded(name, config.engine, config.description)

    def add_uploaded(self, name: str, engine: EngineName, description: str) -> Entry:
        """An endpoint that an upload makes.

        Raises
        ------
        InvalidRequest
            No endpoint may have this name.
        Conflict
            There is one already.
        """
        if re.fullmatch(ENDPOINT_NAME_PATTERN, name) is None:
            raise InvalidRequest(
                f"{name[:128]!r} cannot be an endpoint's name: it has up to 128 letters, digits, dots, dashes and "
                "underscores, and begins with a letter or digit."
            )
        if name in RESERVED_NAMES or any(name == support.name for support in self.file.supports):
            raise InvalidRequest(f"{name!r} is the gateway's own; choose another name.")
        if name in self._entries:
            raise Conflict(f"There is an endpoint {name!r} already.")
        entry = Entry(endpoint_config(name, {"ENGINE": engine, "NR_WORKERS": 0}), description, is_uploaded=True)
        self._add(entry)
        return entry

    def require_uploaded(self, name: str) -> None:
        """Refuse what only holds for endpoints that uploads made.

        Raises
        ------
        UnknownEndpoint
        Conflict
            It stands in the file.
        """
        if not self.get(name).is_uploaded:
            raise Conflict(f"{name!r} stands in the gateway's configuration file: take it out there, and start again.")

    def require_engine(self, name: str, engine: EngineName | None) -> None:
        """Refuse what only holds for endpoints of this engine; None: of any.

        Raises
        ------
        UnknownEndpoint
        InvalidRequest
            It has another one.
        """
        there = self.get(name).config.engine
        if engine not in {None, there}:
            raise InvalidRequest(f"{name!r} is an endpoint of the engine {there}; it takes no model of {engine}.")

    def remove(self, name: str) -> None:
        """Forget the endpoint.

        Raises
        ------
        UnknownEndpoint, Conflict
            As above.
        """
        self.require_uploaded(name)
        del self._entries[name]

    def refusal(self, pool: str) -> str | None:
        """Why a worker of this pool is not taken in; None: it is."""
        pools = self.local_workers()
        return None if pool in pools else f"This gateway has no endpoint {pool!r}; it has: {', '.join(sorted(pools))}."

    def local_workers(self) -> dict[str, int]:
        """How many worker processes each pool has on this machine at the start; pools that may have some have a 0."""
        wanted: dict[str, int] = {MODELHOST_POOL: 0}
        hosts = next((config for config in self.file.endpoints if config.is_pool), None)
        for entry in self:
            pool, count = entry.config.pool, entry.config.local_workers
            wanted[pool] = max(wanted.get(pool, 0), count)
        if hosts is not None:
            wanted[MODELHOST_POOL] = hosts.local_workers
        return wanted
