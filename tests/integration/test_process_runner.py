"""What the sandbox holds back, what the limits stop, and what is left where there is no sandbox."""

import json
import os
import socket
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import pytest
from structlog.testing import capture_logs

from contracts.models import BlobRef
from contracts.tasks import LOG_TAIL_BYTES
from job_consumer.runner.base import ModelRefused, RunnerError, RunResult
from job_consumer.runner.process import ProcessRunner, SandboxPolicy
from tests.support.hostile_models import assignment, content_of, unzipped, zip_of
from tests.support.requirements import missing

TAG = "inference-server-test/inline:1"


class RunProgram(Protocol):
    """Runs a program text as a model; its result and its output."""

    def __call__(
        self, program: str, files: dict[str, str] | None = None, **overrides: Any
    ) -> tuple[RunResult, dict[str, bytes]]: ...


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "inline"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def new_runner(tmp_path: Path, model_folder: Path) -> Iterator[Callable[..., ProcessRunner]]:
    scratch = tmp_path / "scratch"

    def make(sandbox: SandboxPolicy = "required", **options: Any) -> ProcessRunner:
        return ProcessRunner(
            scratch=scratch, model_folders=[model_folder.parent], consumer="here", sandbox=sandbox, **options
        )

    yield make
    assert list((scratch / "runs").rglob("*")) == []


@pytest.fixture
def runner(new_runner: Callable[..., ProcessRunner]) -> ProcessRunner:
    try:
        return new_runner()
    except RunnerError as error:
        missing(str(error))


def write_program(folder: Path, program: str) -> None:
    command = ["python", "main.py"] if program.startswith("import") else ["sh", "main.py"]
    (folder / "main.py").write_text(program, encoding="utf-8")
    (folder / "model.toml").write_text(
        f'human_readable_id = "inline"\ncontainer_tag = "{TAG}"\ncommand = {json.dumps(command)}\n', encoding="utf-8"
    )


def run_on(runner: ProcessRunner, folder: Path, program: str, files: dict[str, str] | None, **overrides: Any) -> Any:
    write_program(folder, program)
    run = runner.prepare(assignment(TAG, **overrides), zip_of(folder.parent / "input.zip", files or {}), None)
    try:
        result = run.execute(threading.Event())
        (folder.parent / "output.zip").unlink(missing_ok=True)
        run.collect(folder.parent / "output.zip")
        return result, unzipped(folder.parent / "output.zip")
    finally:
        run.discard()


@pytest.fixture
def sandboxed(runner: ProcessRunner, model_folder: Path) -> RunProgram:
    return lambda program, files=None, **overrides: run_on(runner, model_folder, program, files, **overrides)


@pytest.fixture
def plain(new_runner: Callable[..., ProcessRunner], model_folder: Path) -> RunProgram:
    runner = new_runner("off")
    return lambda program, files=None, **overrides: run_on(runner, model_folder, program, files, **overrides)


@pytest.fixture(params=["sandboxed", "plain"])
def either(request: pytest.FixtureRequest) -> RunProgram:
    chosen: RunProgram = request.getfixturevalue(request.param)
    return chosen


# What the sandbox shows


def test_the_hosts_files_are_not_there(sandboxed: RunProgram, tmp_path: Path) -> None:
    (tmp_path / "another task's output").write_text("secret", encoding="ascii")
    looked_for = [tmp_path, "/home", "/var", "/etc/shadow", "/etc/hosts", "/root/.ssh", "/run", "/sys", "/boot", "/srv"]

    _, output = sandboxed(
        "import json, os, sys\n"
        f"seen = [path for path in {[str(path) for path in looked_for]} if os.path.exists(path)]\n"
        "json.dump(seen, open('/output/seen.json', 'w'))\n"
    )

    assert json.loads(output["seen.json"]) == []


def test_nothing_but_input_output_and_tmp_can_be_written(sandboxed: RunProgram) -> None:
    _, output = sandboxed(
        "for folder in / /app /dev /etc /model /proc/sys/kernel /usr /usr/lib /input /output /tmp /dev/shm; do\n"
        '    if touch "$folder/new" 2>/dev/null; then echo "$folder"; fi\n'
        "done > /tmp/written\n"
        "cp /tmp/written /output/written\n"
    )

    assert output["written"].decode().split() == ["/input", "/output", "/tmp", "/dev/shm"]


def test_the_input_may_be_changed_in_place(sandboxed: RunProgram) -> None:
    result, output = sandboxed("set -e\necho more >> /input/a/file\nmv /input/a /output/\n", {"a/file": "some\n"})

    assert (result.exit_code, output) == (0, {"a/file": b"some\nmore\n"})


def test_a_model_has_no_privileges(sandboxed: RunProgram) -> None:
    _, output = sandboxed("cp /proc/self/status /output/status\nid -u > /output/uid\nsetpriv --reuid 0 id 2>&1 || :\n")

    status = dict(line.split(":\t", 1) for line in output["status"].decode().splitlines() if ":\t" in line)
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"
    assert output["uid"] == b"65534\n"


def test_other_processes_are_not_seen(sandboxed: RunProgram) -> None:
    _, output = sandboxed("ls /proc | grep -c '^[0-9]' > /output/count\n")

    assert int(output["count"]) <= 5


def test_python_is_the_consumers_own_with_its_packages(sandboxed: RunProgram) -> None:
    result, output = sandboxed(
        "import sys, pathlib, pydantic\npathlib.Path('/output/prefix').write_text(sys.prefix + sys.version)\n"
    )

    assert result == RunResult(exit_code=0, log_tail="")
    assert output["prefix"].decode() == sys.prefix + sys.version


def test_the_consumers_environment_stays_with_the_consumer(either: RunProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVATE_API_TOKEN", "secret")

    _, output = either('env > "$OUTPUT_DIR/environment"\n', cpus=2.0)

    environment = dict(line.split("=", 1) for line in output["environment"].decode().splitlines())
    assert "PRIVATE_API_TOKEN" not in environment
    assert {"INPUT_DIR", "OUTPUT_DIR", "MODEL_DIR", "HOME", "PATH", "LANG"} <= environment.keys()
    assert environment["OMP_NUM_THREADS"] == "2"
    assert environment["CUDA_VISIBLE_DEVICES"] == ""


def test_a_bridged_model_reaches_the_network(sandboxed: RunProgram) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        result, _ = sandboxed(
            f"import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=5)\n", network="bridge"
        )

    assert result == RunResult(exit_code=0, log_tail="")


def test_memory_backed_folders_are_bounded(sandboxed: RunProgram) -> None:
    _, output = sandboxed(
        "for folder in /tmp /dev/shm; do\n"
        "    head -c 40000000 /dev/zero > $folder/big 2>/dev/null\n"
        "    stat -c %s $folder/big\n"
        "done > /output/sizes\n",
        memory_bytes=32 << 20,
        shm_bytes=1 << 20,
    )

    assert [int(size) for size in output["sizes"].split()] == [32 << 20, 1 << 20]


# What the limits stop


FORKED_EATERS = """import os, time
for _ in range(4):
    if os.fork() == 0:
        kept = bytearray(os.urandom(1 << 20)) * 60
        time.sleep(60)
time.sleep(60)
"""
DOUBLING = "import os\nkept = bytearray(os.urandom(1 << 20))\nwhile True:\n    kept = kept + kept\n"
POPULATED = (
    "import mmap\nkept = [mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_POPULATE) for _ in range(64)]\n"
)
THEN_WAIT = "import time\n" + "time.sleep(60)\n"


@pytest.mark.parametrize("program", [FORKED_EATERS, DOUBLING, POPULATED + THEN_WAIT, "tail /dev/zero\n"])
def test_however_memory_is_eaten_it_is_noticed(either: RunProgram, program: str) -> None:
    result, _ = either(program, memory_bytes=128 << 20)

    assert (result.out_of_memory, result.exit_code) == (True, 137)


def test_memory_that_workers_share_counts_once(either: RunProgram) -> None:
    result, _ = either(
        "import os, time\n"
        "shared = bytearray(os.urandom(1 << 20)) * 100\n"
        "children = [os.fork() or (time.sleep(0.5), os._exit(0)) for _ in range(6)]\n"
        "for child in children:\n"
        "    os.waitpid(child, 0)\n",
        memory_bytes=256 << 20,
    )

    assert result == RunResult(exit_code=0, log_tail="")


def test_what_stays_in_the_background_ends_with_the_program(either: RunProgram) -> None:
    began = time.monotonic()
    result, _ = either("(setsid sh -c 'sleep 271 & sleep 272' &)\nsleep 0.2\necho done\n")

    assert result == RunResult(exit_code=0, log_tail="done\n")
    assert time.monotonic() - began < 60
    assert _processes_named(b"271", b"272") == []


def _processes_named(*arguments: bytes) -> list[str]:
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdecimal() and (process / "cmdline").read_bytes().split(b"\0")[1:2] in [
                [a] for a in arguments
            ]:
                found.append(process.name)
        except OSError:
            continue
    return found


def test_a_flood_of_log_costs_no_memory(either: RunProgram) -> None:
    tracemalloc.start()
    try:
        result, _ = either("yes | head -c 30000000\n")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert result.log_tail == "y\n" * (LOG_TAIL_BYTES // 2)
    assert peak < 2 << 20


def test_a_program_inherits_nothing_but_its_three_streams(either: RunProgram) -> None:
    _, output = either('ls /proc/$$/fd > "$OUTPUT_DIR/descriptors"\n')

    # The shell keeps its script open, beyond the numbers that a program uses.
    assert [number for number in output["descriptors"].split() if int(number) < 10] == [b"0", b"1", b"2"]


def test_a_program_killed_by_a_signal_ends_with_128_and_its_number(either: RunProgram) -> None:
    result, _ = either("kill -SEGV $$\n")

    assert result.exit_code == 139


def test_a_program_that_cannot_be_started_is_the_models_fault(either: RunProgram, model_folder: Path) -> None:
    result, _ = either("exec /no/such/program\n")

    assert result.exit_code == 127
    assert "/no/such/program" in result.log_tail


def test_no_file_grows_beyond_the_bound_of_the_output(
    new_runner: Callable[..., ProcessRunner], model_folder: Path
) -> None:
    result, output = run_on(
        new_runner("off", max_output_bytes=1 << 20),
        model_folder,
        'exec head -c 2000000 /dev/zero > "$OUTPUT_DIR/big"',
        None,
    )

    assert result.exit_code == 128 + 25  # SIGXFSZ
    assert len(output["big"]) == 1 << 20


def test_an_output_beyond_its_bound_is_the_models_fault(
    new_runner: Callable[..., ProcessRunner], model_folder: Path
) -> None:
    program = 'for n in 1 2 3; do head -c 500000 /dev/zero > "$OUTPUT_DIR/$n"; done\n'

    with pytest.raises(ModelRefused, match="more than 1048576 bytes"):
        run_on(new_runner("off", max_output_bytes=1 << 20), model_folder, program, None)


def test_a_tree_deeper_than_python_recurses_is_discarded(sandboxed: RunProgram) -> None:
    result, _ = sandboxed(
        "import os\nos.chdir('/output')\nfor _ in range(3000):\n    os.mkdir('d', 0o700)\n    os.chdir('d')\n"
    )

    assert result == RunResult(exit_code=0, log_tail="")


# What is asked for and cannot be had


def test_without_bubblewrap_programs_run_plain_and_one_warning_says_what_is_lost(
    new_runner: Callable[..., ProcessRunner], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with capture_logs() as logs:
        runner = new_runner("auto")

    assert not runner.sandboxed
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("models_run_without_sandbox", "warning")]
    assert "bwrap is not installed" in logs[0]["why"]
    assert "network" in logs[0]["lost"]


def test_without_bubblewrap_a_required_sandbox_is_an_error(
    new_runner: Callable[..., ProcessRunner], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "scratch" / "runs").mkdir(parents=True)

    with pytest.raises(RunnerError, match="bwrap is not installed"):
        new_runner("required")


def test_a_bubblewrap_that_fails_is_found_out_before_the_first_task(
    new_runner: Callable[..., ProcessRunner], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'No permissions to create new namespace' >&2\nexit 1\n", encoding="ascii")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    with capture_logs() as logs:
        runner = new_runner("auto")

    assert not runner.sandboxed
    assert "No permissions to create new namespace" in logs[0]["why"]


def test_a_sandbox_that_breaks_later_is_our_trouble(runner: ProcessRunner, model_folder: Path, tmp_path: Path) -> None:
    write_program(model_folder, "echo never\n")
    run = runner.prepare(assignment(TAG), zip_of(tmp_path / "input.zip", {}), None)
    model_folder.rename(tmp_path / "moved away")

    with pytest.raises(RunnerError, match="sandbox"):
        run.execute(threading.Event())

    run.discard()


@pytest.mark.parametrize(
    ("overrides", "error", "reason"),
    [
        ({"use_gpu": True}, RunnerError, "needs a GPU"),
        ({"capabilities": ("SYS_PTRACE",)}, ModelRefused, "SYS_PTRACE"),
        ({"input_mountpoint": "/../etc"}, ModelRefused, "'..'"),
        ({"output_mountpoint": "/usr/output"}, ModelRefused, "/usr"),
        ({"model_mountpoint": "/dev"}, ModelRefused, "/dev"),
        ({"output_mountpoint": "/input"}, ModelRefused, "/input"),
        ({"output_mountpoint": "/input/output"}, ModelRefused, "/input"),
        ({"content": BlobRef(sha256="0" * 64, size=1)}, RunnerError, "content was here"),
    ],
)
def test_what_cannot_be_given_is_refused_before_anything_is_made(
    runner: ProcessRunner,
    model_folder: Path,
    tmp_path: Path,
    overrides: dict[str, Any],
    error: type[Exception],
    reason: str,
) -> None:
    write_program(model_folder, "echo never\n")

    with pytest.raises(error, match=reason):
        runner.prepare(assignment(TAG, **overrides), zip_of(tmp_path / "input.zip", {}), None)

    assert runner.leftovers() == []


def test_consumers_that_bring_the_same_content_at_once_share_it(
    new_runner: Callable[..., ProcessRunner], model_folder: Path, tmp_path: Path
) -> None:
    write_program(model_folder, 'cat "$MODEL_DIR/weights"\n')
    model_zip = zip_of(tmp_path / "model.zip", {"weights": b"1" * 1000})
    given = zip_of(tmp_path / "input.zip", {})
    runner = new_runner("off")
    logs: list[str] = []

    def bring_and_run() -> None:
        run = runner.prepare(assignment(TAG, content=content_of(model_zip)), given, model_zip)
        logs.append(run.execute(threading.Event()).log_tail)
        run.discard()

    threads = [threading.Thread(target=bring_and_run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert logs == ["1" * 1000] * 8
