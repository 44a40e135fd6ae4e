"""docker-compose.yaml keeps the promises that documentation/how_to/deploy.md makes."""

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from deployment.variables import DEPLOYED_DEFAULTS, FIXED_SETTINGS, SECRETS, VARIABLES
from job_consumer.config import JobConsumerSettings
from online_gateway.config import OnlineGatewaySettings
from online_worker.config import OnlineWorkerSettings
from private_api.config import PrivateApiSettings
from public_api.config import PublicApiSettings
from service_kit.settings import Settings, is_secret
from tests.support.compose import COMPOSE_FILE, ROOT, STACK_FILE, load, variables
from tests.support.requirements import missing

COMPOSE = load(COMPOSE_FILE)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SETTINGS: dict[str, type[Settings]] = {
    "public-api": PublicApiSettings,
    "private-api": PrivateApiSettings,
    "job-consumer": JobConsumerSettings,
    "online-gateway": OnlineGatewaySettings,
    "modelhost": OnlineWorkerSettings,
    "job-consumer-gpu": JobConsumerSettings,
}
LEFT_ALONE = {
    "job-consumer": {"MODELS_FOLDER", "GPU_UUID", "GPU_INDEX", "TAKE_CPU_TASKS"},
    "job-consumer-gpu": {"MODELS_FOLDER"},
    "modelhost": {"WORKER_ID", "MODULES_DIR", "CONTENTS_DIR"},
}
"""Settings that a container does not choose: a consumer without a card has none to name."""
each_service = pytest.mark.parametrize("name", SERVICES)


def settings_of(service: str) -> set[str]:
    return {name.upper() for name in SETTINGS[service].model_fields}


@pytest.mark.parametrize("path", [COMPOSE_FILE, STACK_FILE], ids=lambda path: path.name)
def test_every_variable_has_its_sentence_and_its_one_default(path: Any) -> None:
    known = {variable.name: variable.default for variable in VARIABLES} | dict(DEPLOYED_DEFAULTS)
    all_settings = {name for service in SETTINGS for name in settings_of(service)}

    for name, defaults in variables(path).items():
        assert name in known or name in all_settings, f"{name} is in neither deployment/variables.py nor the settings"
        assert defaults <= {known.get(name, "")}, f"{name} has another default in deployment/variables.py"


def test_every_variable_with_a_sentence_is_used() -> None:
    used = variables(COMPOSE_FILE).keys() | variables(STACK_FILE).keys()

    assert {variable.name for variable in VARIABLES} <= used
    assert not {variable.name for variable in SECRETS} & used, "secrets travel in files"


@pytest.mark.parametrize("service", SETTINGS)
def test_every_setting_of_a_service_reaches_it(service: str) -> None:
    environment: dict[str, str] = SERVICES[service]["environment"]
    secrets = {name.upper() for name, field in SETTINGS[service].model_fields.items() if is_secret(field)}

    expected = {
        f"{name}_FILE" if name in secrets else name for name in settings_of(service) - LEFT_ALONE.get(service, set())
    }

    assert set(environment) == expected
    for name in settings_of(service) & set(environment) - FIXED_SETTINGS - {"DATA_DIR"}:
        assert environment[name] in (f"${{{name}:-}}", f"${{{name}:-{DEPLOYED_DEFAULTS.get(name)}}}")


def test_compose_finds_nothing_to_say_about_the_file() -> None:
    asked = subprocess.run(
        ["docker", "compose", "--file", COMPOSE_FILE, "--profile", "*", "config", "--quiet"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    if "docker: 'compose' is not" in asked.stderr or "unknown command" in asked.stderr:
        missing("docker compose is not installed")
    assert (asked.returncode, asked.stdout, asked.stderr) == (0, "", "")


def test_only_the_reverse_proxy_publishes_ports() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["reverse-proxy"]


def test_only_consumers_see_the_engines_socket() -> None:
    seeing = [name for name, service in SERVICES.items() if "docker.sock" in str(service.get("volumes", ""))]

    assert seeing == ["job-consumer", "job-consumer-gpu"]


def test_only_what_talks_to_users_is_outside_of_the_internal_network() -> None:
    assert COMPOSE["networks"]["internal"] == {"internal": True}
    outside = [name for name, service in SERVICES.items() if "edge" in service["networks"]]

    assert outside == ["reverse-proxy", "public-api", "online-gateway"]
    assert "internal" not in SERVICES["reverse-proxy"]["networks"]


def test_the_online_path_and_the_batch_path_share_no_network_but_the_door() -> None:
    assert COMPOSE["networks"]["workers"] == {"internal": True}
    assert SERVICES["modelhost"]["networks"] == ["workers"]
    assert SERVICES["online-gateway"]["networks"] == ["edge", "workers"]
    assert [name for name, service in SERVICES.items() if "workers" in service["networks"]] == [
        "online-gateway",
        "modelhost",
    ]


@each_service
def test_every_container_has_limits_and_gives_up_its_privileges(name: str) -> None:
    service = SERVICES[name]

    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["stop_grace_period"]


@pytest.mark.parametrize("name", SETTINGS)
def test_no_registry_is_asked_for_our_images_unless_told(name: str) -> None:
    assert SERVICES[name]["pull_policy"] == "${PULL_POLICY:-never}"


@pytest.mark.parametrize("name", [*SETTINGS, "reverse-proxy"])
def test_what_is_ours_and_the_reverse_proxy_cannot_write_to_its_image(name: str) -> None:
    assert SERVICES[name]["read_only"] is True


@each_service
def test_no_secret_is_in_an_environment(name: str) -> None:
    for variable in SERVICES[name].get("environment", {}):
        assert variable.endswith("_FILE") or not any(word in variable for word in ("PASSWORD", "TOKEN", "_URL_"))


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert {variable.name: variable.default for variable in VARIABLES}["VERSION"] == project["version"]


def test_a_consumer_is_waited_for_longer_than_it_drains() -> None:
    grace = next(variable.default for variable in VARIABLES if variable.name == "STOP_GRACE")

    assert int(grace.removesuffix("s")) >= JobConsumerSettings.model_fields["drain_seconds"].default + 20


@pytest.mark.parametrize("path", [COMPOSE_FILE, STACK_FILE], ids=lambda path: path.name)
def test_an_upload_in_flight_may_be_given_an_hour(path: Path) -> None:
    grace = load(path)["services"]["public-api"]["stop_grace_period"]

    assert int(grace.removesuffix("m")) * 60 >= 3600 + int(DEPLOYED_DEFAULTS["LEAVE_SECONDS"])


@pytest.mark.parametrize(
    "name", ["reverse-proxy", "public-api", "private-api", "postgres", "rabbitmq", "online-gateway", "modelhost"]
)
def test_both_files_agree_on_what_they_share(name: str) -> None:
    stack = load(STACK_FILE)["services"][name]

    for key in ("image", "command", "environment", "read_only", "cap_add", "cap_drop", "healthcheck", "hostname"):
        assert stack.get(key) == SERVICES[name].get(key), f"{key} of {name} differs in docker-stack.yaml"
