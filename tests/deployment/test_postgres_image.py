"""The database's drop-in image, with the rights that it has in the deployment, over a port of this host."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import psycopg
import pytest
from docker.models.containers import Container

from tests.support.base_images import (
    STOP_SECONDS,
    StartContainer,
    address_of,
    containers_of,
    ended,
    log_of,
    read_only,
    run_in,
    wait_for_log,
)
from tests.support.waiting import eventually

PASSWORD = "a password of a test"
PGDATA = "/var/lib/postgresql/data/pgdata"
CLEAN_STOP = "database system is shut down"


@pytest.fixture(scope="module")
def password_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secrets") / "postgres_password"
    path.write_text(f"{PASSWORD}\n")
    return path


@pytest.fixture(scope="module")
def settings(password_file: Path) -> dict[str, Any]:
    """What the deployment starts it with, and a port of the loopback interface."""
    return {
        "environment": {
            "POSTGRES_USER": "inference",
            "POSTGRES_DB": "inference",
            "POSTGRES_PASSWORD_FILE": "/run/secrets/postgres_password",
            "PGDATA": PGDATA,
        },
        "volumes": read_only(password_file, "/run/secrets/postgres_password"),
        "ports": {"5432/tcp": ("127.0.0.1", None)},
    }


@pytest.fixture(scope="module")
def database(image_engine: docker.DockerClient, postgres_image: str, settings: dict[str, Any]) -> Iterator[Container]:
    with containers_of(image_engine) as start:
        container = start(postgres_image, **settings)
        wait_until_ready(container)
        yield container


def wait_until_ready(container: Container) -> None:
    """As the deployment's healthcheck asks."""
    command = ["pg_isready", "--quiet", "--host=127.0.0.1", "--username=inference", "--dbname=inference"]

    def ready() -> bool:
        assert container.client.api.inspect_container(container.id)["State"]["Running"], log_of(container)
        return int(container.exec_run(command).exit_code) == 0

    eventually(ready, within=90, every=0.2)


def ask(container: Container, *queries: str, password: str = PASSWORD) -> str:
    """The first column of the last query's first row, asked over TCP."""
    host, port = address_of(container, 5432)
    with psycopg.connect(
        host=host, port=port, user="inference", dbname="inference", password=password, connect_timeout=30
    ) as connection:
        for query in queries:
            answer = connection.execute(query.encode())
        row = answer.fetchone()
    assert row is not None
    return str(row[0])


def test_the_first_start_makes_the_named_database_for_the_named_user(database: Container) -> None:
    assert ask(database, "SELECT current_database()") == "inference"
    assert ask(database, "SHOW server_version").startswith("17.")
    assert ask(database, "SHOW server_encoding") == "UTF8"
    assert ask(database, "SELECT datcollate FROM pg_database WHERE datname = 'inference'") == "en_US.utf8"


@pytest.mark.parametrize("password", ["another one", ""], ids=["wrong", "none"])
def test_over_tcp_only_the_password_of_the_file_is_let_in(database: Container, password: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        ask(database, "SELECT 1", password=password)

    inside = ["psql", "--host=127.0.0.1", "--username=inference", "--no-password", "--command=SELECT 1"]
    assert database.exec_run(inside).exit_code != 0


def test_the_password_is_kept_as_scram_and_not_in_the_servers_environment(database: Container) -> None:
    kept = ask(database, "SELECT rolpassword FROM pg_authid WHERE rolname = 'inference'")

    assert kept.startswith("SCRAM-SHA-256$")
    assert PASSWORD not in run_in(database, "cat", "/proc/1/environ", user="postgres")


def test_the_server_runs_as_a_user_without_rights_and_the_official_images_number(database: Container) -> None:
    status = dict(line.split(":\t") for line in run_in(database, "cat", "/proc/1/status").splitlines())

    assert status["Name"] == "postgres"
    assert status["Uid"].split() == ["999"] * 4
    assert status["CapEff"] == "0" * 16
    assert run_in(database, "stat", "--format=%u:%g %a", PGDATA) == "999:999 700"


def test_a_stop_is_quick_and_clean_and_data_survive_it(
    postgres_image: str, settings: dict[str, Any], start_container: StartContainer
) -> None:
    container = start_container(postgres_image, **settings)
    wait_until_ready(container)
    ask(container, "CREATE TABLE kept (answer INTEGER)", "INSERT INTO kept VALUES (42) RETURNING answer")

    # A client that stays connected holds up a smart shutdown, and not the fast one that STOPSIGNAL asks for.
    host, port = address_of(container, 5432)
    with psycopg.connect(host=host, port=port, user="inference", dbname="inference", password=PASSWORD):
        container.stop(timeout=STOP_SECONDS)
    assert container.wait(timeout=60)["StatusCode"] == 0
    assert CLEAN_STOP in log_of(container)

    container.start()
    wait_until_ready(container)
    assert ask(container, "SELECT answer FROM kept") == "42"
    assert log_of(container).count("creating subdirectories") == 1
    assert "not properly shut down" not in log_of(container)


def test_without_a_password_no_database_is_made(postgres_image: str, start_container: StartContainer) -> None:
    status, log = ended(start_container(postgres_image))

    assert status == 1
    assert log.endswith("none is made without a password: set POSTGRES_PASSWORD_FILE.\n")


def test_a_password_file_that_is_not_there_is_named(postgres_image: str, start_container: StartContainer) -> None:
    status, log = ended(start_container(postgres_image, environment={"POSTGRES_PASSWORD_FILE": "/run/secrets/none"}))

    assert (status, log) == (1, "error: POSTGRES_PASSWORD_FILE names /run/secrets/none, which cannot be read.\n")


def test_a_database_that_was_half_made_when_the_host_went_down_is_made_anew(
    postgres_image: str, settings: dict[str, Any], start_container: StartContainer
) -> None:
    container = start_container(postgres_image, **settings)
    wait_for_log(container, "creating subdirectories")
    container.kill("SIGKILL")

    container.start()
    wait_until_ready(container)

    assert ask(container, "SELECT current_database()") == "inference"
    assert "interrupted while it made the database; making it anew" in log_of(container)


def test_a_database_that_was_half_moved_into_place_is_made_anew(
    postgres_image: str, settings: dict[str, Any], start_container: StartContainer
) -> None:
    script = f"mkdir -p {PGDATA}/base {PGDATA}/.initialising && echo 17 > {PGDATA}/.initialising/PG_VERSION"
    before = start_container(postgres_image, ["sh", "-c", script], volumes={})
    assert ended(before)[0] == 0

    container = start_container(postgres_image, volumes_from=[before.id], **settings)
    wait_until_ready(container)

    assert ask(container, "SELECT current_database()") == "inference"
    assert run_in(container, "ls", "-A", PGDATA).split().count(".initialising") == 0


def test_a_folder_with_other_files_is_left_alone(
    postgres_image: str, settings: dict[str, Any], start_container: StartContainer
) -> None:
    before = start_container(postgres_image, ["sh", "-c", f"mkdir {PGDATA} && echo mine > {PGDATA}/thesis.txt"])
    assert ended(before)[0] == 0

    status, log = ended(start_container(postgres_image, volumes_from=[before.id], **settings))

    assert status == 1
    assert f"{PGDATA} holds files but no database" in log
    after = start_container(postgres_image, ["cat", f"{PGDATA}/thesis.txt"], volumes_from=[before.id])
    assert ended(after) == (0, "mine\n")


@pytest.mark.parametrize(("command", "answer"), [(["--version"], "postgres (PostgreSQL) 17."), (["id", "-un"], "root")])
def test_flags_go_to_the_server_and_other_commands_run_as_they_stand(
    postgres_image: str, start_container: StartContainer, command: list[str], answer: str
) -> None:
    status, log = ended(start_container(postgres_image, command))

    assert status == 0
    assert log.startswith(answer)


def test_a_server_flag_is_heeded(
    postgres_image: str, settings: dict[str, Any], start_container: StartContainer
) -> None:
    container = start_container(postgres_image, ["-c", "max_connections=17"], **settings)
    wait_until_ready(container)

    assert ask(container, "SHOW max_connections") == "17"
