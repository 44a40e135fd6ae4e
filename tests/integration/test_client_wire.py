"""The client against a real HTTP server that speaks the wire: models, posts, addresses, and a whole run."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import inference_client as ic
from contracts.models import RequestedLimits
from contracts.task_state import TaskState
from tests.support.requirements import missing
from tests.support.wire_script import ScriptedTask, zip_of
from tests.support.wire_server import WireServer, running_wire_server

PENDING, RUNNING, FINISHED = TaskState.PENDING, TaskState.RUNNING, TaskState.FINISHED
UID = "AbCdEfGh" + "x" * 35


@pytest.fixture
def wire() -> Iterator[WireServer]:
    with running_wire_server() as server:
        yield server


@pytest.fixture
def client(wire: WireServer) -> Iterator[ic.InferenceClient]:
    with ic.InferenceClient(wire.url, timeout=5) as client:
        yield client


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "input.zip"
    path.write_bytes(zip_of(**{"a.txt": b"input"}))
    return path


def test_a_model_is_added_listed_shown_and_removed(wire: WireServer, client: ic.InferenceClient, package: Path) -> None:
    limits = RequestedLimits(timeout_seconds=60, capabilities=("SYS_NICE",))

    added = client.add_model("segment", "image:1", description="d", use_gpu=True, limits=limits, content=package)

    assert added.human_readable_id == "segment"
    assert [view.human_readable_id for view in client.list_models()] == ["segment"]
    assert client.get_model("segment").container_tag == "image:1"
    assert wire.files == [package.read_bytes()]
    query = wire.requests("POST", "/api/models/")[0].query
    assert (query["use_gpu"], query["model_available"], query["description"]) == (["True"], ["True"], ["d"])
    assert query["capabilities"] == ["SYS_NICE"]
    client.remove_model("segment")
    with pytest.raises(ic.RequestRefused, match="No model is registered") as refused:
        client.get_model("segment")
    assert (refused.value.status, refused.value.code) == (404, "unknown_model")


def test_a_taken_id_is_refused_with_the_servers_sentence(wire: WireServer, client: ic.InferenceClient) -> None:
    wire.model("segment")

    with pytest.raises(ic.RequestRefused, match="'segment' is taken") as refused:
        client.add_model("segment", "image:1")

    assert refused.value.status == 409
    assert wire.requests("POST", "/api/models/")[0].body_bytes == 0


def test_a_server_that_lets_nobody_add_models_is_told_apart(wire: WireServer, client: ic.InferenceClient) -> None:
    wire.happens("POST", "/api/models/", status=405, detail="Method Not Allowed", code="http_error")

    with pytest.raises(ic.RequestRefused, match="ALLOW_PUBLIC_POST_MODEL is off"):
        client.add_model("segment", "image:1")


def test_a_post_carries_the_file_whole_with_its_length_and_without_its_name(
    wire: WireServer, client: ic.InferenceClient, tmp_path: Path
) -> None:
    wire.model("m")
    package = tmp_path / "Jane Doe 1970.zip"
    package.write_bytes(os.urandom(3 * 2**20 + 17))
    told: list[tuple[int, int | None]] = []

    uid = client.submit("m", package, lambda sent, total: told.append((sent, total)))

    assert uid in wire.tasks
    assert wire.files == [package.read_bytes()]
    headers = wire.requests("POST", "/api/tasks/")[0].headers
    assert int(headers["content-length"]) > 3 * 2**20
    assert "transfer-encoding" not in headers
    assert told[-1] == (3 * 2**20 + 17, 3 * 2**20 + 17)
    assert len(told) == 4


def test_an_unknown_model_is_refused(client: ic.InferenceClient, package: Path) -> None:
    with pytest.raises(ic.RequestRefused) as refused:
        client.submit("nobody", package)

    assert (refused.value.status, refused.value.code) == (404, "unknown_model")


def test_an_early_413_is_told_in_the_servers_words_although_the_pipe_breaks(
    wire: WireServer, client: ic.InferenceClient, tmp_path: Path
) -> None:
    package = tmp_path / "large.zip"
    package.write_bytes(bytes(64 * 2**20))
    wire.happens(
        "POST", "/api/tasks/", status=413, detail="The limit is 1 MiB.", code="upload_too_large", before_body=True
    )

    with pytest.raises(ic.RequestRefused, match=r"The limit is 1 MiB\.") as refused:
        client.submit("m", package)

    assert (refused.value.status, refused.value.code) == (413, "upload_too_large")


def test_an_answer_lost_after_the_whole_post_is_uncertain_and_not_repeated(
    wire: WireServer, client: ic.InferenceClient, package: Path
) -> None:
    wire.happens("POST", "/api/tasks/", cut_after=-1)

    with pytest.raises(ic.SubmissionUncertain, match="may or may not exist"):
        client.submit("m", package)

    assert len(wire.requests("POST", "/api/tasks/")) == 1


def test_a_proxy_that_lost_its_server_leaves_the_post_uncertain(
    wire: WireServer, client: ic.InferenceClient, package: Path
) -> None:
    wire.happens("POST", "/api/tasks/", status=504, body=b"<html>Gateway\n Timeout</html>")

    with pytest.raises(ic.SubmissionUncertain, match="answered 504: <html>Gateway Timeout</html>"):
        client.submit("m", package)


def test_a_platform_that_lost_its_storage_after_the_whole_post_leaves_it_uncertain(
    wire: WireServer, client: ic.InferenceClient, package: Path
) -> None:
    body = b'{"detail": "The answer is lost.", "code": "outcome_unknown"}'
    wire.happens("POST", "/api/tasks/", status=503, body=body, headers={"Retry-After": "2"})

    with pytest.raises(ic.SubmissionUncertain, match="The answer is lost"):
        client.submit("m", package)

    assert len(wire.requests("POST", "/api/tasks/")) == 1


def test_a_post_refused_with_503_says_when_to_try_again(
    wire: WireServer, client: ic.InferenceClient, package: Path
) -> None:
    wire.happens("POST", "/api/tasks/", status=503, detail="Away.", headers={"Retry-After": "7"})

    with pytest.raises(ic.RequestRefused, match="Away") as refused:
        client.submit("m", package)

    assert refused.value.is_temporary
    assert refused.value.retry_after == timedelta(seconds=7)
    assert len(wire.requests("POST", "/api/tasks/")) == 1


def test_nobody_listening_is_unreachable_and_no_task(package: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"

    with ic.InferenceClient(url) as client, pytest.raises(ic.ServerUnreachable, match="cannot be reached") as error:
        client.submit("m", package)

    assert not isinstance(error.value, ic.SubmissionUncertain)


def test_something_else_at_this_address_is_told(wire: WireServer, client: ic.InferenceClient) -> None:
    wire.happens("GET", "/api/models/", status=200, body=b"<html>A printer</html>")

    with pytest.raises(ic.AnswerNotUnderstood, match="is the address right"):
        client.list_models()


def test_a_server_that_moved_is_named_by_its_new_address(wire: WireServer, client: ic.InferenceClient) -> None:
    wire.happens("GET", "/api/models/", status=308, headers={"Location": "https://new.example.org/api/models/"})

    with pytest.raises(ic.RequestRefused, match=re.escape("moved to https://new.example.org")):
        client.list_models()


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://example.org", "http://[bad"])
def test_what_is_no_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(ic.ClientError, match="is no server address"):
        ic.InferenceClient(url)


def test_a_missing_bundle_of_certificates_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ic.ClientError, match="no readable bundle"):
        ic.InferenceClient("https://127.0.0.1", ca=tmp_path / "none.pem")


def test_a_server_of_an_unknown_authority_is_trusted_once_its_bundle_is_named(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    openssl = shutil.which("openssl") or missing("openssl makes the certificate")
    options = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=wire",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ]
    subprocess.run([openssl, *options, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)

    with running_wire_server(tls) as wire:
        with ic.InferenceClient(wire.url) as client, pytest.raises(ic.ServerUnreachable, match=r"'ca' \(--ca\)"):
            client.list_models()
        with ic.InferenceClient(wire.url, ca=certificate) as client:
            assert client.list_models() == []


def test_a_token_is_sent_and_a_proxy_is_not_asked_for_this_machine(
    wire: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")

    with ic.InferenceClient(wire.url, token="secret") as client:
        client.list_models()

    assert wire.seen[0].headers["authorization"] == "Bearer secret"


def test_run_packs_posts_waits_and_fetches(wire: WireServer, client: ic.InferenceClient, tmp_path: Path) -> None:
    wire.model("m")
    wire.posted = [ScriptedTask(UID, states=[PENDING, RUNNING, FINISHED])]
    (tmp_path / "scan.dcm").write_bytes(b"scan")
    uids: list[str] = []

    result = client.run("m", [tmp_path / "scan.dcm"], tmp_path / "out.zip", timeout=30, on_submitted=uids.append)

    assert uids == [result.uid] == [UID]
    assert result.status.state is FINISHED
    assert result.output.read_bytes() == wire.tasks[UID].output


_UPLOAD = """
import sys, threading
from pathlib import Path
import psutil
from inference_client import InferenceClient

process = psutil.Process()
with InferenceClient(sys.argv[1]) as client:
    client.list_models()
    before = process.memory_info().rss
    peak = before

    def look(sent, total):
        global peak
        peak = max(peak, process.memory_info().rss)

    client.submit("m", Path(sys.argv[2]), look)
print(peak - before)
"""


def test_an_upload_of_300_megabytes_takes_no_more_memory_than_a_few_chunks(wire: WireServer, tmp_path: Path) -> None:
    wire.model("m")
    package = tmp_path / "large.zip"
    with package.open("wb") as file:
        file.truncate(300 * 2**20)

    done = subprocess.run(
        [sys.executable, "-c", _UPLOAD, wire.url, str(package)], capture_output=True, text=True, timeout=120, check=True
    )

    assert wire.requests("POST", "/api/tasks/")[0].body_bytes > 300 * 2**20
    assert int(done.stdout) < 32 * 2**20
