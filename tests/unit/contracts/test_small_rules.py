import re

import pytest
from pydantic import ValidationError

from contracts import routes
from contracts.models import HUMAN_READABLE_ID_PATTERN, RequestedLimits
from contracts.queue import ALL_QUEUES, queue_for, queues_of
from contracts.tasks import UID_BYTES, short_uid


def test_a_uid_in_a_log_line_is_too_short_to_use() -> None:
    uid = "x" * (UID_BYTES * 4 // 3 + 1)

    assert len(short_uid(uid)) < 10
    assert uid not in short_uid(uid)


@pytest.mark.parametrize("name", ["a", "ct-body-mask", "Model.v2_final", "0" * 128, "Brain mask 2", "Lünge", "_x"])
def test_a_models_name_may_be_what_people_call_it(name: str) -> None:
    assert re.fullmatch(HUMAN_READABLE_ID_PATTERN, name)


@pytest.mark.parametrize("name", ["", ".", "..", "-x", "a/b", "a\\b", " a", "a ", "0" * 129, "a\nb", "a\n", "a\x00"])
def test_a_models_name_is_nothing_that_a_path_or_a_shell_could_misread(name: str) -> None:
    assert not re.fullmatch(HUMAN_READABLE_ID_PATTERN, name)


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout_seconds": 0},
        {"memory_bytes": 1},
        {"cpus": -1},
        {"pids": 0},
        {"shm_bytes": -1},
        {"network": "host"},
    ],
)
def test_limits_that_nothing_could_run_under_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RequestedLimits.model_validate(wrong)


def test_every_task_has_a_queue_that_somebody_serves_and_cpu_consumers_see_no_gpu_task() -> None:
    assert queue_for(use_gpu=True) not in queues_of(has_gpu=False)
    assert queue_for(use_gpu=False) in queues_of(has_gpu=False)
    assert queues_of(has_gpu=True)[0] == queue_for(use_gpu=True)
    assert queues_of(has_gpu=True, takes_cpu_tasks=False) == (queue_for(use_gpu=True),)
    assert set(queues_of(has_gpu=True)) == set(ALL_QUEUES)


def test_what_users_reach_and_what_only_services_reach_never_share_a_path() -> None:
    paths = {name: path for name, path in vars(routes).items() if name.isupper() and isinstance(path, str)}

    assert len(set(paths.values())) == len(paths)
    assert all(path.startswith(("/api/", "/internal/", "/health/")) for path in paths.values())
