import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import LimitAboveCeiling
from contracts.models import Limits, RequestedLimits
from private_api.services.limits import LimitPolicy

DEFAULTS = Limits(timeout_seconds=10, memory_bytes=2**30, cpus=1, pids=100, shm_bytes=2**20)
CEILINGS = Limits(
    timeout_seconds=20,
    memory_bytes=2**31,
    cpus=2,
    pids=200,
    shm_bytes=2**21,
    network="bridge",
    capabilities=("SYS_NICE",),
)
POLICY = LimitPolicy(DEFAULTS, CEILINGS)


def test_what_is_not_asked_for_is_the_default() -> None:
    assert POLICY.resolve(RequestedLimits()) == DEFAULTS


def test_exactly_the_ceiling_is_allowed() -> None:
    POLICY.check(RequestedLimits(**CEILINGS.model_dump()))


@given(st.floats(min_value=20.001, allow_nan=False), st.integers(min_value=201))
def test_above_the_ceiling_is_refused(timeout: float, pids: int) -> None:
    for asked in (RequestedLimits(timeout_seconds=timeout), RequestedLimits(pids=pids)):
        with pytest.raises(LimitAboveCeiling, match="ceiling"):
            POLICY.check(asked)


def test_what_was_allowed_once_is_cut_to_todays_ceilings() -> None:
    strict = LimitPolicy(DEFAULTS, CEILINGS.model_copy(update={"pids": 50, "network": "none", "capabilities": ()}))

    cut = strict.resolve(RequestedLimits(pids=150, network="bridge", capabilities=("SYS_NICE",)))

    assert (cut.pids, cut.network, cut.capabilities) == (50, "none", ())


def test_a_capability_that_is_not_allowed_is_named() -> None:
    with pytest.raises(LimitAboveCeiling, match=r"NET_ADMIN.*allows SYS_NICE"):
        POLICY.check(RequestedLimits(capabilities=("SYS_NICE", "NET_ADMIN")))
