"""Reading a service's configuration: from the environment, secrets also from files.

Every setting NAME that is a secret may be given as NAME_FILE, the path of a file that holds it (the habit of docker
secrets). Wrong configuration stops the process with one clear line.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

WRONG_CONFIGURATION = 2
"""The exit status that tells a supervisor that a restart would change nothing."""

LONGEST_SECONDS = 365 * 86_400
"""The most that a setting may ask a wait to last; far longer ones overflow the clocks below."""

S = TypeVar("S", bound="Settings")


def _is_address(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number, or the brackets of an IPv6 address do not match
        return False


def _check_http(address: str) -> str:
    if not _is_address(address, ("http", "https")):
        raise ValueError("is no HTTP address; write http://host:port")
    return address


def _check_broker(url: SecretStr | None) -> SecretStr | None:
    if url is not None and not _is_address(url.get_secret_value(), ("amqp", "amqps")):
        raise ValueError("is no broker's address; write amqp://user:password@host:port/vhost")
    return url


def _check_token(token: SecretStr) -> SecretStr:
    text = token.get_secret_value()
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError("travels in a header: write it in ASCII letters, digits and signs, without spaces")
    return token


HttpAddress = Annotated[str, AfterValidator(_check_http)]
BrokerAddress = Annotated[SecretStr | None, AfterValidator(_check_broker)]
HeaderToken = Annotated[SecretStr, Field(min_length=16), AfterValidator(_check_token)]
LogLevel = Annotated[str, Field(pattern="(?i)^(debug|info|warning|error)$")]


def is_secret(field: FieldInfo) -> bool:
    """Whether the field holds a secret."""
    kinds = [
        field.annotation,
        *get_args(field.annotation),
    ]  # of an optional one with rules, Annotated[SecretStr, ...] | None
    return any(kind is SecretStr or get_args(kind)[:1] == (SecretStr,) for kind in kinds)


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
            end_misconfigured(f"{field_name.upper()}_FILE: cannot read {path}: {error.strerror}")
        except UnicodeDecodeError:
            end_misconfigured(f"{field_name.upper()}_FILE: {path} is no text; write the secret in UTF-8")

    def __call__(self) -> dict[str, Any]:
        """All secrets that files hold."""
        values = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in values.items() if value is not None}


class Settings(BaseSettings):
    """Base of every service's settings: frozen, read once."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", case_sensitive=False, env_ignore_empty=True, allow_inf_nan=False
    )

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
            names = ["_".join(str(part) for part in mistake["loc"]).upper()] if mistake["loc"] else []
            _say(": ".join([*names, mistake["msg"].removeprefix("Value error, ")]))
        raise SystemExit(WRONG_CONFIGURATION) from None


_FOR_CHILDREN = {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV", "SYSTEMROOT"}
_FOR_CHILDREN_PREFIXES = (
    *("LC_", "LD_", "PYTHON", "XDG_", "SSL_", "CUDA", "NVIDIA_", "OMP_", "MKL_", "KMP_", "OPENBLAS_"),
    *("ORT_", "TF_", "TORCH_", "HF_"),
)


def environment_for_children() -> dict[str, str]:
    """What of our environment a child process needs that runs the code of others: no setting, and so no secret."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _FOR_CHILDREN or name.startswith(_FOR_CHILDREN_PREFIXES)
    }


def end_misconfigured(sentence: str) -> NoReturn:
    """End the process, with one line, because it cannot run as it is configured."""
    _say(sentence)
    raise SystemExit(WRONG_CONFIGURATION)


def _say(sentence: str) -> None:
    sys.stderr.write(f"configuration: {sentence}\n")
