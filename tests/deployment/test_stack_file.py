"""docker-stack.yaml keeps the promises that documentation/how_to/run_a_swarm.md makes."""

from typing import Any

import pytest

from tests.support.compose import COMPOSE_FILE, ROOT, STACK_FILE, load

STACK = load(STACK_FILE)
PLAIN = load(ROOT / "docker-stack.plain-overlay.yaml")
COMPOSE = load(COMPOSE_FILE)
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
CARDS = range(8)
ON_DATA_HOST = ["reverse-proxy", "private-api", "postgres", "rabbitmq", "online-gateway"]
each_service = pytest.mark.parametrize("name", SERVICES)


@each_service
def test_no_service_has_a_virtual_address(name: str) -> None:
    assert SERVICES[name]["deploy"]["endpoint_mode"] == "dnsrr"


@each_service
def test_every_container_has_limits_and_gives_up_its_capabilities(name: str) -> None:
    service = SERVICES[name]

    assert service["deploy"]["resources"]["limits"].keys() == {"memory", "pids"}
    assert service["deploy"]["restart_policy"] == {"condition": "any", "delay": "5s"}
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service["cap_drop"] == ["ALL"]
    assert service["stop_grace_period"]


def test_only_the_reverse_proxy_publishes_ports_and_on_its_own_host() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["reverse-proxy"]
    assert {port["mode"] for port in SERVICES["reverse-proxy"]["ports"]} == {"host"}


def test_only_consumers_see_the_engines_socket() -> None:
    seeing = [name for name, service in SERVICES.items() if "docker.sock" in str(service.get("volumes", ""))]

    assert seeing == [name for name in SERVICES if name.startswith("job-consumer")]


def test_what_keeps_data_stays_on_the_host_with_the_label() -> None:
    for name in ON_DATA_HOST:
        assert SERVICES[name]["deploy"]["placement"] == {"constraints": ["node.labels.data == true"]}
        assert SERVICES[name]["deploy"]["replicas"] == 1


@pytest.mark.parametrize("card", CARDS)
def test_the_label_of_a_card_starts_the_consumer_of_that_card(card: int) -> None:
    service = SERVICES[f"job-consumer-gpu-{card}"]

    assert service["environment"]["GPU_INDEX"] == str(card)
    assert service["deploy"]["mode"] == "global"
    assert service["deploy"]["placement"] == {"constraints": [f"node.labels.gpu-{card} == true"]}


@pytest.mark.parametrize("name", ["job-consumer", "job-consumer-gpu-0"])
def test_consumers_are_set_as_on_one_host(name: str) -> None:
    here = SERVICES[name]["environment"].keys() - {"GPU_INDEX"}
    there = COMPOSE["services"][name.removesuffix("-0")]["environment"].keys() - {"GPU_INDEX", "GPU_UUID"}

    assert here == there


def test_a_consumers_scratch_folder_has_one_path_inside_and_outside() -> None:
    scratch = SERVICES["job-consumer"]["environment"]["SCRATCH_DIR"]
    volume = STACK["volumes"]["scratch"]["name"]

    assert scratch.endswith(f"/volumes/{volume}/_data")
    assert f"scratch:{scratch}" in SERVICES["job-consumer"]["volumes"]


def test_networks_between_hosts_are_encrypted_unless_the_second_file_is_given() -> None:
    assert {name: network["driver_opts"] for name, network in STACK["networks"].items()} == {
        "edge": {"encrypted": "true"},
        "internal": {"encrypted": "true"},
        "workers": {"encrypted": "true"},
    }
    without = {
        name: {key: network[key] for key in network if key != "driver_opts"}
        for name, network in STACK["networks"].items()
    }
    assert PLAIN["networks"] == without
    assert PLAIN.keys() == {"version", "networks"}


def test_the_internal_network_has_no_way_out() -> None:
    assert STACK["networks"]["internal"]["internal"] is True
    assert [name for name, service in SERVICES.items() if "edge" in service["networks"]] == [
        "reverse-proxy",
        "public-api",
        "online-gateway",
    ]
    assert STACK["networks"]["workers"]["internal"] is True


@pytest.mark.parametrize("kind", ["secrets", "configs"])
def test_what_cannot_change_in_a_swarm_has_a_version_in_its_name(kind: str) -> None:
    for one in STACK[kind].values():
        assert one["name"].endswith("_VERSION:-1}")
        assert one["name"].startswith("inference_")
