"""The command ``infer`` against a real HTTP server: what it prints, where, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.task_state import TaskState
from inference_client import cli
from tests.support.waiting import eventually
from tests.support.wire_script import ScriptedTask, zip_of
from tests.support.wire_server import WireServer, running_wire_server

PENDING, RUNNING, FINISHED, FAILED = TaskState.PENDING, TaskState.RUNNING, TaskState.FINISHED, TaskState.FAILED
UID = "AbCdEfGh" + "x" * 35
TASK = f"/api/tasks/{UID}"

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def wire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WireServer]:
    with running_wire_server() as server:
        server.model("m")
        monkeypatch.setenv("INFER_URL", server.url)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        monkeypatch.chdir(tmp_path)
        (tmp_path / "scan.dcm").write_bytes(b"scan")
        yield server


def printed_json(capsys: Capture) -> dict[str, Any]:
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return printed


def test_run_brings_the_output_and_prints_its_place(wire: WireServer, tmp_path: Path, capsys: Capture) -> None:
    wire.posted = [ScriptedTask(UID, states=[PENDING, RUNNING, FINISHED], waiting_for="all consumers are busy")]

    assert cli.main(["run", "m", "scan.dcm"]) == 0

    printed = capsys.readouterr()
    assert printed.out == "m-output.zip\n"
    assert printed.err.splitlines() == [
        "input: 120 B",
        f"task {UID}",
        "pending, number 3 in the queue: all consumers are busy",
        "running: the model works",
        "finished after 12.3 s of run time",
        "output: 122 B",
    ]
    assert (tmp_path / "m-output.zip").read_bytes() == wire.tasks[UID].output
    (tmp_path / "posted.zip").write_bytes(wire.files[0])
    with zipfile.ZipFile(tmp_path / "posted.zip") as archive:
        assert archive.read("scan.dcm") == b"scan"


def test_run_unpacks_into_a_folder_and_leaves_nothing_else(wire: WireServer, tmp_path: Path) -> None:
    wire.posted = [ScriptedTask(UID, output=zip_of(deep__mask=b"mask"))]

    assert cli.main(["run", "m", "scan.dcm", "-o", "out"]) == 0

    assert (tmp_path / "out" / "deep" / "mask").read_bytes() == b"mask"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "scan.dcm", "state"]


def test_run_with_json_prints_one_object_and_nothing_else(wire: WireServer, capsys: Capture) -> None:
    wire.posted = [ScriptedTask(UID)]

    assert cli.main(["run", "m", "scan.dcm", "-o", "out.zip", "--json"]) == 0

    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert (answer["ok"], answer["uid"], answer["output"]) == (True, UID, "out.zip")
    assert (answer["run_seconds"], answer["status"]["state"]) == (12.3, "finished")
    assert err == ""


def test_a_folder_in_use_is_refused_before_anything_is_posted(
    wire: WireServer, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()

    assert cli.main(["run", "m", "scan.dcm", "-o", "out"]) == 2

    assert "infer: out exists and is not an empty folder" in capsys.readouterr().err
    assert wire.seen == []


def test_a_failed_task_ends_with_1_and_its_reason_exit_code_and_log(wire: WireServer, capsys: Capture) -> None:
    log = "".join(f"line {n}\n" for n in range(100)) + "\x1b[31mValueError: no such slice\n"
    wire.posted = [ScriptedTask(UID, states=[FAILED], error="The model failed.", exit_code=3, log=log)]

    assert cli.main(["run", "m", "scan.dcm"]) == 1

    err = capsys.readouterr().err.splitlines()
    assert "infer: Task AbCdEfGh… failed: The model failed. (exit code 3)" in err
    assert err[-1] == "\N{REPLACEMENT CHARACTER}[31mValueError: no such slice"
    assert "line 99" in err
    assert "line 80" not in err


def test_a_failed_task_with_json_carries_all_that_is_known(wire: WireServer, capsys: Capture) -> None:
    wire.posted = [ScriptedTask(UID, states=[FAILED], error="The model failed.", exit_code=3, log="Traceback")]

    assert cli.main(["run", "m", "scan.dcm", "--json"]) == 1

    answer = printed_json(capsys)
    assert (answer["ok"], answer["uid"]) == (False, UID)
    assert answer["error"]["kind"] == "task_failed"
    assert (answer["error"]["exit_code"], answer["error"]["log_tail"]) == (3, "Traceback")


@pytest.mark.parametrize(
    ("mishap", "exit_status", "sentence"),
    [
        ({"status": 404, "detail": "No such model."}, 4, "No such model."),
        ({"status": 413, "detail": "The limit is 1 MiB.", "before_body": True}, 4, "The limit is 1 MiB."),
        ({"status": 503, "detail": "Away for a moment."}, 3, "Away for a moment."),
        ({"status": 507, "detail": "The disk is full."}, 3, "The disk is full."),
        ({"cut_after": -1}, 3, "may or may not exist"),
        ({"status": 200, "body": b"<html>"}, 3, "does not answer as this platform does"),
    ],
)
def test_a_post_that_fails_is_one_line_and_the_documented_status(
    wire: WireServer, capsys: Capture, mishap: dict[str, Any], exit_status: int, sentence: str
) -> None:
    wire.happens("POST", "/api/tasks/", **mishap)

    assert cli.main(["run", "m", "scan.dcm"]) == exit_status

    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("infer: ")]
    assert sentence in line


def test_a_server_that_is_not_there_ends_with_3(wire: WireServer, capsys: Capture) -> None:
    assert cli.main(["models", "list", "--url", "http://127.0.0.1:9"]) == 3

    assert capsys.readouterr().err.startswith("infer: The server http://127.0.0.1:9 cannot be reached")


def test_a_wait_that_times_out_ends_with_5_and_says_how_to_go_on(wire: WireServer, capsys: Capture) -> None:
    wire.posted = [ScriptedTask(UID, states=[RUNNING])]

    assert cli.main(["run", "m", "scan.dcm", "-o", "my out.zip", "--timeout", "300ms"]) == 5

    err = capsys.readouterr().err
    assert "infer: Task AbCdEfGh… was not over within 0.3 s; it goes on." in err
    assert f"infer: go on with: infer tasks get {UID} -o 'my out.zip' --url {wire.url}" in err


def test_detach_prints_the_uid_and_get_fetches_it_later_by_its_beginning(
    wire: WireServer, tmp_path: Path, capsys: Capture
) -> None:
    wire.posted = [ScriptedTask(UID, states=[RUNNING, FINISHED])]

    assert cli.main(["run", "m", "scan.dcm", "--detach"]) == 0
    assert capsys.readouterr().out == f"{UID}\n"
    assert cli.main(["tasks", "get", "AbCd", "-o", "out", "--no-wait"]) == 5
    assert cli.main(["tasks", "get", "AbCd", "-o", "out"]) == 0

    assert (tmp_path / "out" / "result.txt").read_bytes() == b"done"


def interrupted_run(wire: WireServer, *options: str) -> tuple[int, str]:
    """Run the command in a process of its own, press Ctrl-C while it waits; its status and stderr."""
    wire.posted = [ScriptedTask(UID, states=[RUNNING])]
    command = [sys.executable, "-c", "import sys; from inference_client.cli import main; sys.exit(main())"]
    arguments = ["run", "m", "scan.dcm", *options]
    with subprocess.Popen([*command, *arguments], stderr=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        eventually(lambda: wire.requests("GET", TASK), within=30)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    return process.returncode, err


def test_ctrl_c_leaves_the_task_alone_and_says_how_to_go_on(wire: WireServer) -> None:
    status, err = interrupted_run(wire)

    assert status == 130
    assert f"infer: interrupted; task {UID} goes on." in err
    assert f"infer: go on with: infer tasks get {UID} -o m-output.zip" in err
    assert "Traceback" not in err
    assert wire.tasks[UID].state is RUNNING


def test_ctrl_c_cancels_the_task_where_that_was_asked_for(wire: WireServer) -> None:
    status, err = interrupted_run(wire, "--cancel-on-interrupt")

    assert status == 130
    assert f"task {UID} is cancelled" in err
    assert "go on with" not in err
    assert wire.tasks[UID].state is TaskState.CANCELLED


def test_the_list_shows_what_was_posted_from_here_and_forgets_what_is_gone(wire: WireServer, capsys: Capture) -> None:
    wire.posted = [ScriptedTask("gone" + "x" * 39), ScriptedTask(UID, states=[PENDING])]
    cli.main(["run", "m", "scan.dcm", "--detach"])
    cli.main(["run", "m", "scan.dcm", "--detach"])
    del wire.tasks["gone" + "x" * 39]
    capsys.readouterr()

    assert cli.main(["tasks", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["UID", "MODEL", "POSTED", "(UTC)", "STATE"]
    assert lines[1].startswith("AbCdEfGhxxxx  m ")
    assert lines[1].endswith("pending, number 3 in the queue")
    assert len(lines) == 2

    assert cli.main(["tasks", "list", "--json"]) == 0
    assert [task["uid"] for task in printed_json(capsys)["tasks"]] == [UID]


def test_status_logs_cancel_and_delete_by_uid(wire: WireServer, capsys: Capture) -> None:
    wire.task(UID, states=[RUNNING], log="working\n")

    assert cli.main(["tasks", "status", UID]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "running: the model works",
        "model    pass_through",
        "posted   2024-05-01 12:00:00 UTC",
        "attempt  1: running",
    ]
    assert cli.main(["tasks", "logs", UID]) == 0
    assert capsys.readouterr().out == "working\n"
    assert cli.main(["tasks", "cancel", UID, "--json"]) == 0
    assert printed_json(capsys) == {"ok": True, "uid": UID, "done": "cancelled"}
    assert cli.main(["tasks", "get", UID]) == 1
    assert cli.main(["tasks", "delete", UID]) == 0
    assert cli.main(["tasks", "status", UID]) == 4


def test_a_uid_that_begins_with_a_dash_is_no_option(wire: WireServer, tmp_path: Path, capsys: Capture) -> None:
    dashed = "-o" + "x" * 41
    wire.posted = [ScriptedTask(dashed)]
    cli.main(["run", "m", "scan.dcm", "--detach"])

    assert cli.main(["tasks", "status", dashed]) == 0
    assert cli.main(["tasks", "get", dashed[:12], "-o", "out.zip"]) == 0
    assert cli.main(["tasks", "logs", "--json", "--", dashed]) == 0
    assert cli.main(["tasks", "status", "--no-such-option"]) == 2

    assert (tmp_path / "out.zip").exists()
    assert "No such option" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error(wire: WireServer) -> None:
    wire.task(UID, log="line\n" * 200_000)
    command = f"{sys.executable} -c 'from inference_client.cli import main; main()' tasks logs {UID} | head -1"

    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)

    assert (done.stdout, done.stderr) == ("line\n", "")


def test_a_model_folder_is_registered_with_the_content_that_its_script_makes(
    wire: WireServer, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.toml").write_text(
        'human_readable_id = "segment"\ncontainer_tag = "segment:1"\ncommand = ["run"]\ncontent_script = "c.py"\n'
        "[limits]\nmemory_bytes = 1073741824\n"
    )
    (folder / "c.py").write_text("import sys, zipfile\nzipfile.ZipFile(sys.argv[1], 'w').writestr('weights', 'w')")

    assert cli.main(["models", "add", "model", "--cpus", "2"]) == 0

    assert capsys.readouterr().out == "segment\n"
    query = wire.requests("POST", "/api/models/")[0].query
    assert (query["memory_bytes"], query["cpus"]) == (["1073741824"], ["2.0"])
    (tmp_path / "content.zip").write_bytes(wire.files[0])
    with zipfile.ZipFile(tmp_path / "content.zip") as archive:
        assert archive.read("weights") == b"w"
    assert cli.main(["models", "add", "model"]) == 4
    assert "'segment' is taken" in capsys.readouterr().err


def test_a_model_is_registered_by_options_listed_shown_and_removed(wire: WireServer, capsys: Capture) -> None:
    options = ["--tag", "segment:1", "--gpu", "--memory", "4G", "--timeout", "2h", "--capability", "SYS_NICE"]

    assert cli.main(["models", "add", "--id", "segment", *options]) == 0

    query = wire.requests("POST", "/api/models/")[0].query
    assert (query["memory_bytes"], query["timeout_seconds"]) == ([str(4 * 2**30)], ["7200.0"])
    assert (query["capabilities"], query["use_gpu"]) == (["SYS_NICE"], ["True"])
    assert cli.main(["models", "list"]) == 0
    assert "segment  cpu  segment:1" in capsys.readouterr().out
    assert cli.main(["models", "show", "segment"]) == 0
    assert "asks for     timeout_seconds 7200.0, memory_bytes 4.0 GiB" in capsys.readouterr().out
    assert cli.main(["models", "remove", "segment"]) == 0
    assert "segment" not in wire.models


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["models", "add"], "Name a folder with a model.toml, or give --id and --tag."),
        (["models", "add", "."], "model.toml does not exist"),
        (["models", "add", "--id", "x", "--tag", "y", "--memory", "lots"], "512M or 4G"),
        (["models", "add", "--id", "x", "--tag", "y", "--memory", "1K"], "memory_bytes"),
        (["models", "add", ".", ".", "--gpu"], "one folder only"),
        (["run", "m"], "Missing argument 'INPUT...'"),
        (["run", "m", "scan.dcm", "-o", "no/such/out.zip"], "is no folder"),
        (["tasks", "status", "abc"], "No task posted from here"),
        (["models", "list", "--url", "localhost"], "is no server address"),
    ],
)
def test_a_mistake_in_the_arguments_ends_with_2_and_says_what_to_do(
    wire: WireServer, capsys: Capture, arguments: list[str], sentence: str
) -> None:
    assert cli.main(arguments) == 2

    err = capsys.readouterr().err
    assert err.startswith("infer: ")
    assert sentence in err
    assert err.count("\n") == 1
