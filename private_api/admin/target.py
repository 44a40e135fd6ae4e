"""Which platform is meant: its database and its folder of stored files."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, SecretStr

from private_api.config import database_in
from service_kit.settings import LogLevel, Settings, load


class AdminSettings(Settings):
    """The settings of private_api that say where things are kept."""

    database_url: SecretStr = Field(description="As for private_api.")
    data_dir: Path = Field(description="As for private_api.")
    log_level: LogLevel = Field(default="INFO", description="As for private_api.")


@dataclass(frozen=True)
class Target:
    """Where a platform keeps its things."""

    database_url: SecretStr
    data_dir: Path

    @classmethod
    def find(cls, folder: Path | None) -> "Target":
        """That of an ``infer up`` by its folder, else that of the environment; ends the process where none is named."""
        if folder is not None:
            return cls(SecretStr(database_in(folder)), folder.resolve())
        settings = load(AdminSettings)
        return cls(settings.database_url, settings.data_dir)
