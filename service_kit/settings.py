"""Reading a service's configuration: from the environment, secrets also from files.

Every setting NAME that is a secret may be given as NAME_FILE, the path of a file that holds it (the habit of docker
secrets). Wrong configuration stops the process with one clear line.
"""

import os
import sys
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

WRONG_CONFIGURATION = 2
"""The exit status that tells a supervisor that a restart would change nothing."""

S = TypeVar("S", bound="Settings")


def is_secret(field: FieldInfo) -> bool:
    """Whether the field holds a secret."""
    return field.annotation is SecretStr or SecretStr in get_args(field.annotation)


class SecretFiles(PydanticBaseSettingsSource):
    """Takes NAME from the file that NAME_FILE names, for the secret fields."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The content of the file without its trailing newline, or None."""
        path = os.environ.get(f"{field_name.upper()}_FILE") if is_secret(field) else None
        if not path:
            return None, field_name, False
        try:
            return Path(path).read_text(encoding="utf-8").rstrip("\r\n"), field_name, False
        except OSError as error:
            raise SystemExit(f"{field_name.upper()}_FILE: cannot read {path}: {error.strerror}") from error

    def __call__(self) -> dict[str, Any]:
        """All secrets that files hold."""
        values = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in values.items() if value is not None}


class Settings(BaseSettings):
    """Base of every service's settings: frozen, read once."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", case_sensitive=False, env_ignore_empty=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings passes all four
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment, then secret files."""
        return init_settings, env_settings, SecretFiles(settings_cls)


def load(settings: type[S], **given: Any) -> S:
    """The settings, given ones before the environment's; on a mistake the process ends with one line per mistake."""
    try:
        return settings(**given)
    except ValidationError as error:
        for mistake in error.errors(include_input=False, include_url=False):
            name = "_".join(str(part) for part in mistake["loc"]).upper()
            sys.stderr.write(f"configuration: {name}: {mistake['msg']}\n")
        raise SystemExit(WRONG_CONFIGURATION) from None
