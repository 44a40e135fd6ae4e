"""The object that endpoints, support processes and start scripts write their lines with."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service_kit.logging import configure, get_logger

_LEVELS = {"e": logging.ERROR, "w": logging.WARNING, "y": logging.WARNING}
"""By the first letter of a colour's name; red is a mere emphasis in many modules."""


class Logger:
    """Writes to stderr, and knows the configuration and where the application keeps its files.

    ``config_file`` is looked for as it is given, then in ``base_folder``, then in the application's folder there.
    ``TF_KERAS`` and ``max_lines`` are taken and mean nothing: there are no log files to split.

    Raises
    ------
    FileNotFoundError
        The configuration file is in none of these places.
    ValueError
        It is not a JSON object.
    """

    def __init__(
        self,
        lib_name: str = "",
        config_file: str = "",
        base_folder: str | Path | None = None,
        app_folder: str | Path | None = None,
        TF_KERAS: bool = False,  # noqa: ARG002, N803 - a name that users write
        max_lines: int | None = None,  # noqa: ARG002
        host_id: str | None = None,
    ) -> None:
        self.lib_name = lib_name
        self.host_id = host_id
        self.root_folder = Path(base_folder or ".").expanduser()
        self.base_folder = self.root_folder / (app_folder or "")
        if base_folder is not None or app_folder is not None:
            self.base_folder.mkdir(parents=True, exist_ok=True)
        if not logging.getLogger().handlers:
            configure(lib_name or "basic_inference_server")
        self._log = get_logger(__name__)
        self.config_data: dict[str, Any] = self._read(config_file) if config_file else {}

    def P(  # noqa: N802 - a name that users write
        self,
        str_msg: object,
        show_time: bool = False,  # noqa: ARG002 - every line has its time
        noprefix: bool = False,
        color: str | None = None,
        boxed: bool = False,  # noqa: ARG002
    ) -> None:
        """Write a line; the colours ``error``, ``warning`` and ``yellow`` give it that level."""
        prefix = {} if noprefix or not self.lib_name else {"by": self.lib_name}
        self._log.log(_LEVELS.get((color or "")[:1].lower(), logging.INFO), "said", text=str(str_msg), **prefix)

    def update_config_data(self, dict_newdata: Mapping[str, Any]) -> None:
        """Add to the configuration; what is there already is replaced."""
        self.config_data = {**self.config_data, **dict_newdata}

    def _read(self, config_file: str) -> dict[str, Any]:
        places = [Path(config_file).expanduser(), self.root_folder / config_file, self.base_folder / config_file]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise FileNotFoundError(f"The configuration file is none of {', '.join(map(str, places))}.")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}.") from error
        if not isinstance(data, dict):
            raise ValueError(f"{path} must hold a JSON object.")  # noqa: TRY004 - the value is wrong, not an argument
        return data
