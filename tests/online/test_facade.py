"""Endpoint modules, a support process, a configuration and a start script of the microservice gateway, run unchanged."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import pytest

from basic_inference_server import LIB_VER, FlaskGateway, Logger
from contracts.errors import InvalidRequest
from tests.support.facade import FacadeSite
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FacadeSite]:
    with FacadeSite(tmp_path_factory.mktemp("facade")) as running:
        yield running


def test_a_call_is_answered_by_the_modules_class(site: FacadeSite) -> None:
    answer = site.run("dummy_model_demo1", INPUT_VALUE="house")

    time = datetime.strptime(answer.pop("time"), "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007 - the local time, by the wire
    assert abs(datetime.now() - time) < timedelta(seconds=60)  # noqa: DTZ005
    assert answer == {
        "similar": "same-house-always-en",
        "inputs": {"INPUT_VALUE": "house", "LANGUAGE": "en"},
        "worker_ver": "1.2.1",
        "ver": LIB_VER,
    }


def test_the_entry_of_the_configuration_reaches_the_class_over_its_defaults(site: FacadeSite) -> None:
    assert site.run("dummy_model_demo2", INPUT_VALUE=2)["prediction"] == 3 * 2 + 4


def test_server_class_names_the_module_of_another_endpoint(site: FacadeSite) -> None:
    assert site.run("times_ten", INPUT_VALUE=2)["prediction"] == 10 * 2


def test_the_servers_that_run_are_listed(site: FacadeSite) -> None:
    answer = site.post("/list_servers", {})

    assert answer.json() == {"AVAIL_SERVERS": ["dummy_model_demo1", "dummy_model_demo2", "times_ten"]}


def test_a_disabled_server_answers_nothing(site: FacadeSite) -> None:
    answer = site.post("/run", {"SIGNATURE": "dummy_model_demo1-bis", "INPUT_VALUE": "house"})

    assert answer.status_code in {404, 503}
    assert "dummy_model_demo1-bis" in answer.json()["ERROR"]


def test_a_support_process_cannot_be_called(site: FacadeSite) -> None:
    answer = site.post("/run", {"SIGNATURE": "support_process"})

    assert answer.status_code == 404
    assert "support_process" not in answer.json()["AVAIL_SERVERS"]


def test_the_figures_of_the_support_process_show_in_the_system_status(site: FacadeSite) -> None:
    def figures() -> dict[str, float]:
        status = site.post("/system_status", {}).json()["SYSTEM_STATUS"]
        posted: dict[str, float] = status.get("system_support_services", {}).get("support_process", {})
        return posted

    first = eventually(figures)
    eventually(lambda: figures()["nr_posts"] > first["nr_posts"])

    assert first["total_disk"] > 0
    assert first["ping_interval"] == 0.2


def test_notifications_of_the_module_are_taken_once(site: FacadeSite) -> None:
    site.post("/notifications", {"SIGNATURE": "dummy_model_demo1"})
    site.run("dummy_model_demo1", INPUT_VALUE="to be noted")

    def taken() -> list[dict[str, str]]:
        notifications: list[dict[str, str]] = site.post("/notifications", {"SIGNATURE": "dummy_model_demo1"}).json()[
            "GENERAL"
        ]
        return notifications

    notification = eventually(taken)[0]
    assert notification["NOTIFICATION_TYPE"] == "log"
    assert notification["NOTIF"] == "Predicting on usr_input: to be noted using Finds a similar word"
    assert taken() == []


def test_what_the_modules_code_raises_is_told_to_caller_and_operator(site: FacadeSite) -> None:
    site.post("/notifications", {"SIGNATURE": "dummy_model_demo1"})

    answer = site.post("/run", {"SIGNATURE": "dummy_model_demo1"})

    assert answer.status_code == 500
    assert "INPUT_VALUE should be defined in inputs" in answer.json()["ERROR"]
    noted = eventually(lambda: site.post("/notifications", {"SIGNATURE": "dummy_model_demo1"}).json()["GENERAL"])
    assert noted[0]["NOTIFICATION_TYPE"] == "exception"
    assert "INPUT_VALUE should be defined in inputs" in noted[0]["NOTIF"]


def test_each_worker_is_a_process_with_a_model_of_its_own(site: FacadeSite) -> None:
    calls = [site.run("dummy_model_demo2", INPUT_VALUE=1)["calls"] for _ in range(3)]

    assert calls == [calls[0], calls[0] + 1, calls[0] + 2]
    assert site.said.count("******** Using a model placeholder *********") >= 2


def test_a_server_is_killed_and_started_again(site: FacadeSite) -> None:
    killed = site.post("/kill_server", {"SIGNATURE": "times_ten"})
    refused = site.post("/run", {"SIGNATURE": "times_ten", "INPUT_VALUE": 1})
    listed = site.post("/list_servers", {}).json()["AVAIL_SERVERS"]
    started = site.post("/start_server", {"SIGNATURE": "times_ten"})

    assert killed.json()["MESSAGE"].startswith("OK")
    assert refused.status_code in {404, 503}
    assert "times_ten" not in listed
    assert started.json()["MESSAGE"].startswith("OK")
    eventually(lambda: site.post("/run", {"SIGNATURE": "times_ten", "INPUT_VALUE": 1}).status_code == 200)


def test_the_number_of_workers_changes_while_it_serves(site: FacadeSite) -> None:
    before = len(site.processes())

    grown = site.post("/update_workers", {"SIGNATURE": "dummy_model_demo2", "NR_WORKERS": 3})

    assert grown.json()["MESSAGE"].startswith("OK")
    eventually(lambda: len(site.processes()) == before + 2)
    site.post("/update_workers", {"SIGNATURE": "dummy_model_demo2", "NR_WORKERS": 1})
    eventually(lambda: len(site.processes()) == before)
    assert site.run("dummy_model_demo2", INPUT_VALUE=2)["prediction"] == 10


def test_the_site_keeps_its_files_in_its_own_folder(site: FacadeSite) -> None:
    tokens = site.folder / "_cache" / "_gateway"

    assert {path.stat().st_mode & 0o777 for path in tokens.glob("*_token")} == {0o600}
    assert not re.search((tokens / "worker_token").read_text(), site.log)
    assert {path.name for path in site.folder.iterdir()} - {"endpoints", "models"} == {
        "_cache",
        "config_gateway.txt",
        "run_gateway.py",
    }


def test_shutdown_ends_everything_with_status_0(tmp_path: Path) -> None:
    with FacadeSite(tmp_path) as site:
        processes = site.processes()
        refused = site.post("/shutdown", {"SIGNATURE": "kill it"})

        told = site.post("/shutdown", {"SIGNATURE": "SAFE_KILL_SERVER_CMD"})

        assert refused.status_code == 422
        assert told.status_code == 200
        assert site.process.wait(60) == 0
        _, left = psutil.wait_procs(processes[1:], timeout=20)
        assert left == []
        assert site.said[-1] == "The gateway is down"


def test_beyond_loopback_only_the_admin_token_stops_it(tmp_path: Path) -> None:
    with FacadeSite(tmp_path, "--host", "0.0.0.0") as site:
        refused = site.post("/shutdown", {"SIGNATURE": "SAFE_KILL_SERVER_CMD"})
        token = (site.folder / "_cache" / "_gateway" / "admin_token").read_text()

        told = site.post("/shutdown", {"SIGNATURE": "SAFE_KILL_SERVER_CMD"}, Authorization=f"Bearer {token}")

        assert refused.status_code == 401
        assert "admin token" in refused.json()["ERROR"]
        assert told.status_code == 200
        assert site.process.wait(60) == 0


OTHER_SCRIPT = """
import sys
from basic_inference_server import FlaskGateway, Logger

log = Logger('APP', config_file='config_gateway.txt', base_folder='.', app_folder='_cache', host_id='a1b2c3')
log.config_data['CONFIG_ENDPOINTS']['dummy_model_demo2']['BIAS'] = 100
FlaskGateway(
  log=log, workers_location='my.endpoints', workers_suffix='Worker', port=int(sys.argv[2]), host_id='a1b2c3',
  server_names=['dummy_model_demo2'], server_execution_path='analyze',
)
"""


def test_a_start_script_chooses_servers_folder_and_path(tmp_path: Path) -> None:
    site = FacadeSite(tmp_path, script="other.py")
    (site.folder / "other.py").write_text(OTHER_SCRIPT)
    (site.folder / "my").mkdir()
    (site.folder / "endpoints").rename(site.folder / "my" / "endpoints")

    with site:
        answer = site.post("/analyze", {"SIGNATURE": "dummy_model_demo2", "INPUT_VALUE": 2})

        assert answer.json()["prediction"] == 3 * 2 + 100
        assert site.post("/list_servers", {}).json() == {"AVAIL_SERVERS": ["dummy_model_demo2"]}
        assert site.post("/run", {"SIGNATURE": "dummy_model_demo2", "INPUT_VALUE": 2}).status_code == 404


def test_a_script_without_endpoints_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="CONFIG_ENDPOINTS"):
        FlaskGateway(Logger("APP", base_folder=tmp_path))
