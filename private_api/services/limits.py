"""What a model may ask for, and what it gets."""

from contracts.errors import LimitAboveCeiling
from contracts.models import Limits, RequestedLimits

_MEASURED = ("timeout_seconds", "memory_bytes", "cpus", "pids", "shm_bytes")


class LimitPolicy:
    """The operator's defaults and ceilings. The ceilings may sink later: what is resolved obeys those of the moment."""

    def __init__(self, defaults: Limits, ceilings: Limits) -> None:
        self._defaults = defaults
        self._ceilings = ceilings

    def check(self, requested: RequestedLimits) -> None:
        """Let a registration pass.

        Raises
        ------
        LimitAboveCeiling
            It asks for more than the operator allows; the message names the limit and the ceiling.
        """
        for name in _MEASURED:
            asked, ceiling = getattr(requested, name), getattr(self._ceilings, name)
            if asked is not None and not asked <= ceiling:
                raise LimitAboveCeiling(f"{name} is {asked}; the operator's ceiling is {ceiling}.")
        if requested.network == "bridge" and self._ceilings.network != "bridge":
            raise LimitAboveCeiling("network is 'bridge'; the operator allows models no network (ALLOW_MODEL_NETWORK).")
        refused = sorted(set(requested.capabilities or ()) - set(self._ceilings.capabilities))
        if refused:
            allowed = ", ".join(self._ceilings.capabilities) or "none"
            raise LimitAboveCeiling(f"capabilities holds {', '.join(refused)}; the operator allows {allowed}.")

    def resolve(self, requested: RequestedLimits) -> Limits:
        """The profile of one run: what was asked for or the default, cut to the ceilings."""
        measured = {
            name: min(getattr(self._defaults if asked is None else requested, name), getattr(self._ceilings, name))
            for name, asked in ((name, getattr(requested, name)) for name in _MEASURED)
        }
        network = requested.network if self._ceilings.network == "bridge" else None
        capabilities = tuple(one for one in requested.capabilities or () if one in self._ceilings.capabilities)
        return Limits.model_validate({**measured, "network": network or "none", "capabilities": capabilities})
