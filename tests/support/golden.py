"""Golden answers: what a call is answered, kept in ``tests/data/golden/<dialect>/<call>.json``.

Kept are the status, the headers of ``_HEADERS`` and the body. What changes from run to run is masked by the name of
its field, wherever it stands: see ``VOLATILE``. The mask keeps the type: ``"<number>"``, ``"<text>"``, ``["<text>"]``. In any
text, what is random of a worker's id is masked: ``moody-1-08fc8517`` becomes ``moody-<worker>``.

``UPDATE_GOLDEN=1 pytest tests/online`` writes them anew; look at the difference before it is committed.
"""

import json
import os
import re
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from tests.support.curl import CurlAnswer

GOLDEN = Path(__file__).parents[1] / "data" / "golden"

VOLATILE = {
    "address",
    "count_requests_handled",
    "inference_time_avg_ms",
    "modelhost",
    "ns",
    "queue_requests_max",
    "req_handling_time_avg_ms",
    "time",
    "trace",
    "ver",
}
_WORKER_ID = re.compile(r"-\d+-[0-9a-f]{8}\b")
_HEADERS = ("content-type", "model-generation", "retry-after", "allow")


def assert_golden(call: str, answer: CurlAnswer, *also_volatile: str) -> None:
    """The answer is the one that is kept for the call, such as ``onnx_models/upload``."""
    kept_in = GOLDEN / f"{call}.json"
    volatile = VOLATILE | set(also_volatile)
    headers = {name: answer.headers[name] for name in _HEADERS if name in answer.headers}
    found = {
        "status": answer.status,
        "headers": _masked(headers, volatile),
        "body": _masked(answer.json, volatile),
    }
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        kept_in.parent.mkdir(parents=True, exist_ok=True)
        kept_in.write_text(text, encoding="utf-8")
    assert found == json.loads(kept_in.read_text(encoding="utf-8")), f"{kept_in} holds another answer than\n{text}"


def _masked(value: Any, volatile: AbstractSet[str], name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _masked(inner, volatile, key) for key, inner in value.items()}
    if isinstance(value, list):
        items = [_masked(inner, volatile, name) for inner in value]
        return items[:1] if name in volatile else items
    if name not in volatile:
        return _WORKER_ID.sub("-<worker>", value) if isinstance(value, str) else value
    return "<number>" if isinstance(value, int | float) else "<text>"
