"""Finds out whether the engine's host sees the scratch folder under the path that it has here."""

import secrets
from contextlib import suppress
from pathlib import Path

from docker.errors import APIError, NotFound
from docker.types import Mount

from job_consumer.runner.base import RunnerError
from job_consumer.runner.docker.engine import ENGINE_ERRORS, Engine, engine_errors, explanation
from job_consumer.runner.docker.exchange import folder_driver
from job_consumer.runner.docker.labels import CONSUMER, INSTALLATION, KIND, Kind, short_digest
from job_consumer.runner.docker.run import remove_container
from job_consumer.runner.docker.tar_stream import extract_output
from service_kit.logging import get_logger

log = get_logger(__name__)

_TARGET = "/inference-server-probe"
_TOKEN_BYTES = 16

_STATUS = Path("/proc/self/status")
_NEEDED = {"DAC_OVERRIDE": 1, "FOWNER": 3}
"""Capabilities, by their bits in linux/capability.h: to read and remove files of any user; to clear sticky folders."""


class SharedFolderProbe:
    """Puts a token into a folder here, and looks at the folder through a container that is never started."""

    def __init__(self, engine: Engine, installation: str, consumer: str) -> None:
        self._engine = engine
        self._name = f"inference-server-probe-{short_digest(installation + '/' + consumer)}"
        self._labels = {INSTALLATION: installation, CONSUMER: consumer, KIND: Kind.PROBE}

    def why_not(self, folder: Path, image: str) -> str | None:
        """Why the shared way cannot be gone, in a sentence; None when it can. ``folder`` is empty, and the caller's.

        Raises
        ------
        RunnerError
            The engine does not answer, or the folder cannot be written.
        """
        lacking = _lacking_capabilities()
        if lacking:
            return (
                f"This process lacks the capabilities {' and '.join(lacking)}, which root has, and could not read and "
                "remove what a model's user writes."
            )
        token = secrets.token_hex(_TOKEN_BYTES)
        shown = folder / "shown"
        received = folder / "received"
        try:
            shown.mkdir()
            received.mkdir()
            (shown / "token").write_text(token)
            self._fetch(shown, received, image)
            seen = (received / "token").read_text()
        except APIError as error:
            return f"The engine cannot mount {shown}: {explanation(error)}."
        except ENGINE_ERRORS as error:
            raise RunnerError(f"The Docker engine did not answer the probe: {explanation(error)}") from error
        except FileNotFoundError:
            return f"The engine has another folder at {shown}."
        except OSError as error:
            raise RunnerError(f"The scratch folder cannot be used: {error}.") from error
        return None if seen == token else f"The engine has another folder at {shown}."

    def _fetch(self, shown: Path, received: Path, image: str) -> None:
        """Copy the folder, as the engine sees it, to ``received``."""
        api = self._engine.api
        self._remove()
        mount = Mount(_TARGET, self._name, no_copy=True, labels=self._labels, driver_config=folder_driver(shown))
        try:
            with engine_errors("create a container"):
                api.create_container(
                    image,
                    command=["never-started"],
                    name=self._name,
                    labels=self._labels,
                    host_config=api.create_host_config(network_mode="none", mounts=[mount]),
                )
            with self._engine.archive(self._name, _TARGET) as stream:
                extract_output(stream, received, max_bytes=2 * _TOKEN_BYTES, max_entries=2)
        finally:
            self._remove()

    def _remove(self) -> None:
        """Remove container and volume, also those of a predecessor that crashed here."""
        remove_container(self._engine, self._name)
        with suppress(NotFound):
            try:
                self._engine.api.remove_volume(self._name)
            except ENGINE_ERRORS as error:
                if isinstance(error, NotFound):
                    raise
                log.warning("volume_not_removed", volume=self._name, error=explanation(error))


def _lacking_capabilities() -> list[str]:
    """Which of those that the shared way takes this process has not; a container's root may lack any."""
    effective = next(line.split()[1] for line in _STATUS.read_text().splitlines() if line.startswith("CapEff:"))
    return [name for name, bit in _NEEDED.items() if not int(effective, 16) >> bit & 1]
