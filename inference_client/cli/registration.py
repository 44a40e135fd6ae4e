"""The options of ``infer models add``, laid over what a model folder says."""

from dataclasses import replace
from typing import Any

from inference_client.errors import InputRefused
from inference_client.model_calls import Registration

_FIELDS = ("human_readable_id", "container_tag", "description", "use_gpu", "content")
_MOUNTPOINTS = {"input_mountpoint": "input", "output_mountpoint": "output", "model_mountpoint": "model"}


def with_options(registration: Registration, given: dict[str, Any]) -> Registration:
    """The registration with the options that were given (those that are not None) in place of its own values.

    Raises
    ------
    InputRefused
        A limit is out of its range.
    """
    from pydantic import ValidationError

    from contracts.models import RequestedLimits

    fields = {name: given.pop(name) for name in _FIELDS if given.get(name) is not None}
    mounts = {part: given[name] for name, part in _MOUNTPOINTS.items() if given.get(name) is not None}
    limits = {name: given[name] for name in RequestedLimits.model_fields if given.get(name) is not None}
    try:
        checked = RequestedLimits.model_validate(registration.limits.model_dump() | limits)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InputRefused(f"{'.'.join(map(str, first['loc']))}: {first['msg']}.") from error
    return replace(registration, **fields, limits=checked, mountpoints=replace(registration.mountpoints, **mounts))
