"""Runs one worker as a process."""

import os
import sys
import threading
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path

from online_worker.config import OnlineWorkerSettings
from online_worker.loop import Ending
from online_worker.prints import give_prints_a_place
from online_worker.scratch import scratch_folder
from online_worker.worker import Worker
from service_kit import logging
from service_kit.settings import WRONG_CONFIGURATION, end_misconfigured, load
from service_kit.signals import stop_on_signals

log = logging.get_logger(__name__)

_SWITCH_SECONDS = 0.0005
"""How long a thread that loads a model may keep the one that answers calls waiting; Python's own is ten times that."""
_RECURSION = 1200
"""Levels. A gateway takes documents as deep as Python's own limit of 1000; what it can send must be readable here."""
_CLOSING = timedelta(seconds=4)
"""What an orderly end may take when the last call was answered: closing the models, and what was being loaded."""
_LAST_SECONDS = 5.0
"""Threads of models that go on for ever may hold the interpreter for so long."""
_CRASHED = 1


def main() -> None:
    """Serve with the settings of the environment."""
    end(run(load(OnlineWorkerSettings)))


def end(status: int) -> None:
    """End the process, even where a model left threads behind that never end.

    Raises
    ------
    SystemExit
    """
    guard = threading.Timer(_LAST_SECONDS, os._exit, [status])
    guard.daemon = True
    guard.start()
    sys.exit(status)


def run(settings: OnlineWorkerSettings) -> int:
    """Serve until a stop signal, or until no gateway is there; the exit status. A second signal ends it at once.

    Signals come to the main thread, and calls are answered in another: so a call that never ends, be it in a library of
    C, cannot keep the process alive.
    """
    give_prints_a_place()
    logging.configure("online_worker", settings.log_level, settings.log_format)
    sys.setswitchinterval(_SWITCH_SECONDS)
    sys.setrecursionlimit(max(_RECURSION, sys.getrecursionlimit()))
    stop = threading.Event()
    with ExitStack() as stack:
        stack.enter_context(stop_on_signals(stop, on_second=partial(os._exit, _CRASHED)))
        try:
            scratch = stack.enter_context(scratch_folder(settings.contents_dir))
        except OSError as error:
            end_misconfigured(f"CONTENTS_DIR: no folder can be made in {settings.contents_dir}: {error.strerror}")
        return _serve(settings, scratch, stop)


def _serve(settings: OnlineWorkerSettings, scratch: Path, stop: threading.Event) -> int:
    worker = Worker(settings, scratch)
    endings: list[Ending] = []

    def serve() -> None:
        try:
            endings.append(worker.run())
        finally:
            stop.set()

    thread = threading.Thread(target=serve, name="worker", daemon=True)
    log.info("worker_starts", worker=worker.worker_id, endpoint=settings.endpoint, gateway=settings.online_gateway)
    thread.start()
    stop.wait()
    worker.stop()
    thread.join(settings.call_drain_seconds + _CLOSING.total_seconds())
    if not endings:
        log.error("worker_crashed" if not thread.is_alive() else "worker_hangs", worker=worker.worker_id)
        return _CRASHED
    log.info("worker_ended", worker=worker.worker_id, reason=endings[0].name.lower())
    return WRONG_CONFIGURATION if endings[0] is Ending.REFUSED else 0
