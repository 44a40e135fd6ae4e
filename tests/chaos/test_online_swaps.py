"""New generations under load: no call fails or sees two of them, and what goes wrong leaves the old one serving."""

import base64
import os
import subprocess
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support.online import ADMIN, OnlinePlatform
from tests.support.online_load import MadeCall, OnlineLoad
from tests.support.requirements import missing
from tests.support.told_endpoints import NUMBERED, numbered_content
from tests.support.waiting import eventually

SWAPS = 50
MIB = 2**20
MOST_GROWTH = 30 * MIB
STEPS = ("before", "during", "after")
ENTRY = {"NR_WORKERS": 2, "NEEDS_CONTENT": True}


def numbered_platform(folder: Path) -> OnlinePlatform:
    platform = OnlinePlatform(folder, {"numbered": ENTRY}, vector_endpoint="numbered")
    platform.write_module("numbered", NUMBERED)
    return platform


def wait_workers(platform: OnlinePlatform, count: int = 2) -> None:
    eventually(lambda: len(platform.http.get("/status").json().get("workers", ())) == count)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[OnlinePlatform]:
    with numbered_platform(tmp_path) as platform:
        wait_workers(platform)
        yield platform


def install(platform: OnlinePlatform, content: bytes, name: str = "name") -> dict[str, Any]:
    """What the service says of these weights."""
    put = httpx.put(
        f"{platform.url}/set_weights",
        data={"nn_id": name},
        files={"data": content},
        headers=ADMIN,
        timeout=90,
        trust_env=False,
    )
    answer: dict[str, Any] = put.json()
    return answer


def load_of(platform: OnlinePlatform, connections: int) -> OnlineLoad:
    return OnlineLoad(platform.url, {"SIGNATURE": "numbered"}, connections=connections)


def numbers_by_generation(calls: list[MadeCall]) -> dict[int | None, set[int]]:
    """Which contents each generation showed, in any step of any call."""
    found: dict[int | None, set[int]] = {}
    for call in calls:
        found.setdefault(call.generation, set()).update(call.body[step] for step in STEPS)
    return found


def assert_each_generation_is_one_content(calls: list[MadeCall]) -> None:
    found = numbers_by_generation(calls)
    assert None not in found
    assert all(len(numbers) == 1 for numbers in found.values()), found
    in_order = [numbers for _, numbers in sorted(found.items(), key=lambda item: item[0] or 0)]
    assert all(max(one) < min(other) for one, other in pairwise(in_order)), in_order


def assert_nobody_went_back(calls: list[MadeCall]) -> None:
    """Each user's answers come from generations whose numbers never fall."""
    last: dict[int, int] = {}
    for call in calls:
        assert (call.generation or 0) >= last.get(call.user, 0)
        last[call.user] = call.generation or 0


def test_weights_are_swapped_again_and_again_under_load_and_no_call_fails_or_is_mixed(platform: OnlinePlatform) -> None:
    assert install(platform, numbered_content(0))["status"] is True
    with load_of(platform, 16) as load:
        load.wait_calls(50)
        for number in range(1, SWAPS + 1):
            answer = install(platform, numbered_content(number, 64 * 2**10))

            assert answer == {"status": True, "message": "OK", "workers_count": 2, "workers": [{"result": True}] * 2}
            load.wait_for(lambda call, number=number: call.is_ok and call.body["after"] == number)  # type: ignore[misc]
        load.stop()

    assert load.failures == []
    assert len(numbers_by_generation(list(load.calls))) == SWAPS + 1
    assert_each_generation_is_one_content(list(load.calls))
    assert_nobody_went_back(list(load.calls))


def test_swaps_leave_nothing_in_memory_or_on_disk(platform: OnlinePlatform) -> None:
    assert platform.process is not None
    processes = [psutil.Process(platform.process.pid), *platform.workers("numbered")]

    def swap(numbers: range) -> None:
        for number in numbers:
            assert install(platform, numbered_content(number, 5 * MIB))["status"] is True

    swap(range(10))
    with load_of(platform, 2) as load:
        before = [process.memory_info().rss for process in processes]
        swap(range(10, 110))
        after = [process.memory_info().rss for process in processes]

    assert load.failures == []
    growths = [one - other for one, other in zip(after, before, strict=True)]
    assert max(growths) < MOST_GROWTH, growths
    kept = eventually(lambda: _at_most(2, list((platform.data_dir / "endpoints" / "numbered").glob("*/content"))))
    assert len(kept) >= 1


def _at_most(count: int, paths: list[Path]) -> list[Path]:
    return paths if len(paths) <= count else []


def test_weights_that_one_worker_refuses_are_taken_back_everywhere(platform: OnlinePlatform) -> None:
    assert install(platform, numbered_content(1))["status"] is True
    with load_of(platform, 16) as load:
        load.wait_calls(50)
        answers = [install(platform, numbered_content(2, refused_by="numbered-2-")) for _ in range(5)]
        load.wait_calls(50)
        load.stop()
    after = install(platform, numbered_content(3))

    for answer in answers:
        assert (answer["status"], answer["workers_count"]) == (False, 2)
        assert sorted(worker["result"] for worker in answer["workers"]) == [False, True]
        (trace,) = [base64.b64decode(worker["trace"]).decode() for worker in answer["workers"] if not worker["result"]]
        assert "these weights are not for me" in trace
    assert load.failures == []
    assert load.answers("after") == {1}
    assert after["status"] is True


@pytest.mark.parametrize("victims", [1, 2])
def test_a_worker_that_is_killed_while_it_loads_fails_the_swap_and_no_call(
    platform: OnlinePlatform, victims: int
) -> None:
    assert install(platform, numbered_content(1))["status"] is True
    loading = platform.modules / "loading.txt"
    answers: list[dict[str, Any]] = []
    swap = threading.Thread(target=lambda: answers.append(install(platform, numbered_content(2, waits=True))))
    with load_of(platform, 16) as load:
        load.wait_calls(50)
        loading.unlink()
        swap.start()
        try:
            eventually(lambda: loading.exists() and loading.read_text() == "2")
            killed = platform.workers("numbered")[:victims]
            for worker in killed:
                worker.kill()
            eventually(lambda: not any(_lives(worker) for worker in killed))
        finally:
            (platform.modules / "go_on.txt").write_text("")
            swap.join(90)
        wait_workers(platform)
        load.wait_calls(50)
        load.stop()

    (answer,) = answers
    assert answer["status"] is False
    assert sum(not worker["result"] for worker in answer["workers"]) >= victims
    assert all(worker["result"] or base64.b64decode(worker["trace"]) for worker in answer["workers"])
    assert load.answers("after") == {1}
    assert all(call.status == 502 for call in load.failures), load.failures
    assert len(load.failures) <= 16 * victims
    assert install(platform, numbered_content(3))["status"] is True


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_worker_that_joins_under_load_serves_the_newest_weights_alone(platform: OnlinePlatform) -> None:
    for number in range(3):
        assert install(platform, numbered_content(number))["status"] is True
    with load_of(platform, 8) as load:
        load.wait_calls(50)
        platform.add_worker("numbered")
        wait_workers(platform, 3)
        load.wait_calls(200)

    assert load.failures == []
    assert load.answers("after") == {2}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A gateway's folder with room for eight MiB."""
    folder = tmp_path / "data"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        missing("a small disk is mounted, which needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def files_of(folder: Path) -> dict[str, int]:
    """Its files that make up models, with their sizes."""
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in {".lock", ".sock"}
    }


def test_an_upload_that_does_not_fit_on_the_disk_leaves_nothing_and_the_old_weights_serve(
    small_disk: Path, tmp_path: Path
) -> None:
    with numbered_platform(tmp_path) as platform:
        wait_workers(platform)
        assert install(platform, numbered_content(1, MIB))["status"] is True
        before = files_of(small_disk)
        with load_of(platform, 4) as load:
            load.wait_calls(20)
            answers = [install(platform, numbered_content(2, 20 * MIB)) for _ in range(3)]
            load.wait_calls(20)
        statuses = [_load_into_repository(platform, 20 * MIB) for _ in range(2)]
        left = files_of(small_disk)
        fits = install(platform, numbered_content(3, MIB))

    assert {answer["status"] for answer in answers} == {False}
    assert all("disk that holds the models is full" in answer["message"] for answer in answers), answers
    assert statuses == [507, 507]
    assert left == before
    assert load.failures == []
    assert load.answers("after") == {1}
    assert fits["status"] is True


def _load_into_repository(platform: OnlinePlatform, size: int) -> int:
    """The status with which a model of this size is refused by the Open Inference Protocol's repository."""
    content = base64.b64encode(bytes(size)).decode()
    load = {"parameters": {"file:1/model.onnx": content}}
    path = f"{platform.url}/v2/repository/models/large/load"
    return httpx.post(path, json=load, headers=ADMIN, timeout=90, trust_env=False).status_code
