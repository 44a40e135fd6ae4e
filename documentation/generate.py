"""Writes the pages that are derived from the code: ``python -m documentation.generate`` (``make docs``).

A test holds the pages equal to what this makes, so they cannot go stale.
"""

import tempfile
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from contracts import errors, inference
from contracts.task_state import POLL_NOT_FOUND, POLL_OUTPUT_MISSING, POLL_STATUS, TRANSITIONS, TaskState
from contracts.tasks import Outcome, Step
from deployment.variables import DEPLOYED_DEFAULTS, FIXED_SETTINGS, SECRETS, VARIABLES, Variable
from documentation.endpoints_page import endpoints_page
from job_consumer.config import JobConsumerSettings
from online_gateway.config import OnlineGatewaySettings
from online_gateway.dialects.errors import status_of as online_status_of
from online_gateway.endpoint_config import GatewayFile
from online_gateway.main import http_app as online_gateway_app
from online_gateway.wiring import Wiring
from online_worker.config import OnlineWorkerSettings
from private_api.config import PrivateApiSettings
from public_api.config import PublicApiSettings
from public_api.main import create_app
from service_kit.http_app import status_of
from service_kit.lifecycle import Departure
from service_kit.settings import Settings, is_secret

ROOT = Path(__file__).resolve().parent.parent
SERVICES: Sequence[tuple[str, type[Settings]]] = (
    ("public_api", PublicApiSettings),
    ("private_api", PrivateApiSettings),
    ("job_consumer", JobConsumerSettings),
    ("online_gateway", OnlineGatewaySettings),
    ("online_worker", OnlineWorkerSettings),
)
_NOTICE = "<!-- Written by `make docs` from the code; edit the code instead. -->\n"
_CONFIGURATION_INTRODUCTION = """\
Every service reads its settings from the environment, once, at its start. A secret may also be given as a file:
`NAME_FILE` names it. A mistake ends the process with one line and exit status 2. `infer up` chooses the addresses, the
token and the folders itself, and takes all other settings from the environment too.
"""
_ERRORS_INTRODUCTION = """
These codes live on that route alone. Everywhere else an error is standard HTTP, with a JSON body of
`{"detail": "what was wrong and what to do", "code": "…"}`:
"""
_ONLINE_ERRORS_INTRODUCTION = """
## Errors of the online path

The statuses of calls to endpoints. The bodies are each dialect's own, and so are a few statuses: 400 in place of 422 in
the Open Inference Protocol, 200 for all of them in the vector service.
"""
_ONLINE_ROUTES_INTRODUCTION = """\
The same description is served at the gateway's own `/openapi.json`, and as a page at its `/docs`; in a deployment, the
reverse proxy serves those of the [batch platform](http_api.md) there. Routes that change what is served take the admin
token, `Authorization: Bearer TOKEN`, wherever the gateway listens beyond its own machine. What an error's status means:
[states and errors](states_and_errors.md#errors-of-the-online-path).
"""
_DIALECTS = {
    "health": "Health",
    "Open Inference Protocol": "Open Inference Protocol",
    "microservice gateway": "The microservice gateway",
    "ONNX models": "ONNX models, and figures",
    "vector service": "The vector service",
}
"""Headings by the tags of the routes."""
_ROUTES_INTRODUCTION = """\
Routes that change models exist only where `ALLOW_PUBLIC_POST_MODEL` is on. The same description is served at
`/openapi.json`, and as a page at `/docs`.
"""


def pages() -> dict[Path, str]:
    """Every derived page by its path."""
    reference = ROOT / "documentation" / "reference"
    return {
        reference / "configuration.md": configuration(),
        reference / "states_and_errors.md": states_and_errors(),
        reference / "http_api.md": http_api(),
        reference / "online_api.md": online_api(),
        reference / "endpoints_file.md": endpoints_page(_NOTICE),
        ROOT / ".env.example": env_example(),
    }


def configuration() -> str:
    """All settings of all services, a table each."""
    parts = [
        "# Configuration\n",
        _NOTICE,
        _CONFIGURATION_INTRODUCTION,
    ]
    for service, settings in SERVICES:
        parts.append(f"## {service}\n\n| variable | default | |\n|---|---|---|")
        parts += [f"| `{name.upper()}` | {_shown_default(f)} | {_sentence(name, f)} |" for name, f in _fields(settings)]
        parts.append("")
    return "\n".join(parts)


def states_and_errors() -> str:
    """The state machine, the polling codes, the outcomes and the errors."""
    arrows = [f"    {a} --> {b}" for a in TaskState for b in sorted(TRANSITIONS[a])]
    ends = [f"    {a} --> [*]" for a in TaskState if a.is_final]
    polls = [f"| {state} | {POLL_STATUS[state]} |" for state in TaskState]
    kinds = [kind for kind in _errors(errors.PlatformError, errors.__name__) if kind is not errors.PlatformError]
    rows = [f"| `{kind.code}` | {status_of(_instance(kind))} | {_doc(kind)} |" for kind in kinds]
    return "\n".join(
        [
            "# States and errors\n",
            _NOTICE,
            "```mermaid\nstateDiagram-v2\n    [*] --> pending",
            *arrows,
            *ends,
            "```\n",
            "| state | `GET /api/tasks/{uid}` |\n|---|---|",
            *polls,
            f"| finished, and the zip is gone | {POLL_OUTPUT_MISSING} |",
            f"| unknown or deleted uid | {POLL_NOT_FOUND} |",
            _ERRORS_INTRODUCTION,
            "| code | status | |\n|---|---|---|",
            *rows,
            _ONLINE_ERRORS_INTRODUCTION,
            "| error | status | |\n|---|---|---|",
            *_online_errors(),
            "\n## How an attempt ends\n\n| outcome | |\n|---|---|",
            *[f"| `{outcome}` | {text} |" for outcome, text in _member_docs(Outcome).items()],
            "| `lease_lapsed` | Its consumer was silent for longer than the lease: another attempt, if any is left. |",
            "\n## The steps of an attempt\n\n| step | |\n|---|---|",
            *[f"| `{step}` | {text} |" for step, text in _member_docs(Step).items()],
            "",
        ]
    )


def http_api() -> str:
    """The public routes, from the application's own description."""
    settings = PublicApiSettings(
        private_api_url="http://127.0.0.1:7000", internal_token=SecretStr("x" * 16), allow_public_post_model=True
    )
    schema = create_app(settings).openapi()
    parts = [
        "# HTTP API\n",
        _NOTICE,
        _ROUTES_INTRODUCTION,
    ]
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            parts += _route(method, path, operation)
    return "\n".join(parts)


def online_api() -> str:
    """The gateway's routes, a table for each dialect."""
    with tempfile.TemporaryDirectory() as folder:
        settings = OnlineGatewaySettings(data_dir=Path(folder), worker_token=SecretStr("x" * 16))
        wiring = Wiring(settings, GatewayFile(), ("127.0.0.1", 0), lambda: None)
        schema = online_gateway_app(wiring, GatewayFile().server_name, Departure()).openapi()
        wiring.release()
    rows: dict[str, list[str]] = {tag: [] for tag in _DIALECTS}
    for path, operations in schema["paths"].items():
        shown: dict[str, list[str]] = {}
        for method, operation in operations.items():
            shown.setdefault(_online_row(operation), []).append(method.upper())
        for row, methods in shown.items():
            rows[operations[methods[0].lower()]["tags"][0]].append(f"| {', '.join(methods)} | `{path}` | {row} |")
    parts = ["# Online API\n", _NOTICE, _ONLINE_ROUTES_INTRODUCTION]
    for tag, heading in _DIALECTS.items():
        parts += [f"## {heading}\n\n| method | path | |\n|---|---|---|", *rows[tag], ""]
    return "\n".join(parts)


def _online_row(operation: dict[str, Any]) -> str:
    return str(operation["summary"]).removesuffix(".") + "."


def env_example() -> str:
    """Every variable of the deployment and of every service, once, with its sentence and its default."""
    lines = [
        "# Copy to .env and change what you need; every default works. `make docs` writes this file.",
        "# A secret NAME of a service started by hand may also be given as NAME_FILE, the path of a file with it.",
        "",
        "# --- secrets, for `make secrets`",
        *_variables(SECRETS),
        "",
        "# --- the deployment",
        *_variables(VARIABLES),
    ]
    users: dict[str, list[str]] = {}
    fields: dict[str, FieldInfo] = {}
    for service, settings in SERVICES:
        for name, field in _fields(settings):
            users.setdefault(name.upper(), []).append(service)
            fields.setdefault(name.upper(), field)
    written = {variable.name for variable in (*VARIABLES, *SECRETS)}
    for service, _ in SERVICES:
        lines += ["", f"# --- {service}"]
        for name, field in fields.items():
            if users[name][0] == service and name not in written | FIXED_SETTINGS:
                lines += _setting(name, field, users[name])
    lines += ["", "# --- chosen by the deployment itself; for services started by hand"]
    for name, field in fields.items():
        if name in FIXED_SETTINGS:
            lines += _setting(name, field, users[name])
    return "\n".join(lines) + "\n"


def _variables(variables: Sequence[Variable]) -> Iterator[str]:
    for variable in variables:
        yield f"# {variable.sentence}"
        yield f"# {variable.name}={variable.default}"


def _setting(name: str, field: FieldInfo, services: Sequence[str]) -> list[str]:
    shared = f" ({', '.join(services)})" if len(services) > 1 else ""
    default = DEPLOYED_DEFAULTS.get(name, None if field.is_required() else field.get_default())
    shown = "" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
    return [f"# {_sentence(name, field)}{shared}", f"# {name}={shown}"]


def _fields(settings: type[Settings]) -> Iterator[tuple[str, FieldInfo]]:
    yield from settings.model_fields.items()


def _sentence(name: str, field: FieldInfo) -> str:
    if not field.description:
        raise ValueError(f"the setting {name} has no description")
    choices = typing.get_args(field.annotation) if typing.get_origin(field.annotation) is typing.Literal else ()
    return field.description + (f" One of {', '.join(map(str, choices))}." if choices else "")


def _shown_default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**, secret" if is_secret(field) else "**required**"
    default = field.get_default()
    if default is None or default is PydanticUndefined:
        return "none, secret" if is_secret(field) else "none"
    return f"`{default}`" if default != "" else "empty"


def _errors(kind: type[errors.PlatformError], module: str) -> Iterator[type[errors.PlatformError]]:
    """Those of a module, each behind its ancestors."""
    if kind.__module__ == module:
        yield kind
    for child in kind.__subclasses__():
        yield from _errors(child, module)


def _online_errors() -> Iterator[str]:
    for kind in _errors(errors.PlatformError, inference.__name__):
        yield f"| `{kind.code}` | {online_status_of(kind.__new__(kind))} | {_doc(kind)} |"


def _instance(kind: type[errors.PlatformError]) -> errors.PlatformError:
    return kind("a", "b") if kind is errors.IllegalTransition else kind("")  # type: ignore[call-arg]


def _doc(thing: Any) -> str:
    return " ".join((thing.__doc__ or "").split())


def _member_docs(enum: type) -> dict[str, str]:
    """The sentence under each member, read from the source: Python keeps none at run time."""
    import ast
    import inspect
    import textwrap

    body = ast.parse(textwrap.dedent(inspect.getsource(enum))).body[0]
    assert isinstance(body, ast.ClassDef)  # noqa: S101
    docs: dict[str, str] = {}
    for member, doc in zip(body.body, body.body[1:], strict=False):
        if isinstance(member, ast.Assign) and isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant):
            value = typing.cast("ast.Constant", member.value).value
            docs[str(value)] = " ".join(str(doc.value.value).split())
    return docs


def _route(method: str, path: str, operation: dict[str, Any]) -> list[str]:
    parts = [f"## `{method.upper()} {path}`\n", f"{operation['summary']}.\n"]
    parameters = operation.get("parameters", [])
    if parameters:
        parts.append("| parameter | in | |\n|---|---|---|")
        for parameter in parameters:
            required = " **Required.**" if parameter.get("required") else ""
            text = parameter.get("description", "") or "From the answer of the post." * (parameter["name"] == "uid")
            parts.append(f"| `{parameter['name']}` | {parameter['in']} | {text}{required} |")
        parts.append("")
    if "requestBody" in operation:
        parts.append("Body: `multipart/form-data` with the file field `zip_file`.\n")
    answers = [f"**{code}** {answer['description']}" for code, answer in operation["responses"].items()]
    return [*parts, "Answers: " + " · ".join(answers) + "\n"]


def main() -> None:
    """Write all pages."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
