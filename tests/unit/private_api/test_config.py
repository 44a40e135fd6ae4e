from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.support.private_api import TOKEN, settings


def test_secrets_do_not_show(tmp_path: Path) -> None:
    given = settings("postgresql://u:hidden@h/d", tmp_path, rabbitmq_url="amqp://u:hidden@h/")

    assert "hidden" not in repr(given)
    assert TOKEN not in repr(given)


def test_a_default_above_its_ceiling_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"DEFAULT_CPUS .* above MAX_CPUS"):
        settings("sqlite:///x", tmp_path, max_cpus=1, default_cpus=2)


def test_zero_hours_keep_tasks_for_ever(tmp_path: Path) -> None:
    assert settings("sqlite:///x", tmp_path).retention is None
    assert settings("sqlite:///x", tmp_path, task_retention_hours=0.5).retention == timedelta(minutes=30)


def test_capabilities_are_split_at_commas(tmp_path: Path) -> None:
    given = settings("sqlite:///x", tmp_path, allowed_capabilities=" SYS_NICE,, NET_RAW ")

    assert given.ceilings.capabilities == ("SYS_NICE", "NET_RAW")
    assert given.ceilings.network == "none"
