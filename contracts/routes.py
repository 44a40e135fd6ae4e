"""Paths that two sides must agree on. ``/api`` is relayed to users, ``/internal`` never is."""

MODELS = "/api/models/"
MODEL = "/api/models/{human_readable_id}"
TASKS = "/api/tasks/"
TASK = "/api/tasks/{uid}"
TASK_STATUS = "/api/tasks/{uid}/status"
TASK_LOGS = "/api/tasks/{uid}/logs"
TASK_CANCEL = "/api/tasks/{uid}/cancel"

PLATFORM = "/internal/platform"
CONSUMER = "/internal/consumers/{consumer}"
QUEUE_NEXT = "/internal/queue/next"
QUEUE_PEEK = "/internal/queue/peek"
CLAIM = "/internal/tasks/{uid}/claim"
TASK_INPUT = "/internal/tasks/{uid}/input"
HEARTBEAT = "/internal/tasks/{uid}/attempts/{attempt}/heartbeat"
OUTPUT = "/internal/tasks/{uid}/attempts/{attempt}/output"
FINISH = "/internal/tasks/{uid}/attempts/{attempt}/finish"
STALE_ATTEMPTS = "/internal/attempts/stale"
MODEL_CONTENT = "/internal/models/{uid}/content"
MODEL_CONTENT_HASHES = "/internal/models/content-hashes"

HEALTH_LIVE = "/health/live"
HEALTH_READY = "/health/ready"

MAX_WAIT_SECONDS = 60
"""The longest ``?wait=`` of the polling route and of the long poll."""
