"""Keeps a few child processes alive: starts them in order, restarts the dead with growing pauses, stops them in order.

Children are forked from a process that has imported everything already and runs no thread, so a start costs
milliseconds. A child that exits with status 2 says that its configuration is wrong: restarting it would change nothing.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.connection import wait
from threading import Event

from service_kit.backoff import Backoff
from service_kit.deadline import Deadline
from service_kit.logging import get_logger
from service_kit.settings import WRONG_CONFIGURATION

log = get_logger(__name__)

_STEADY = timedelta(seconds=30)
"""A child that lived so long may die again without counting its earlier deaths."""
_DEATHS_IN_A_ROW = 6
_LOOK_EVERY = timedelta(milliseconds=200)
_PR_SET_PDEATHSIG = 1

_fork = multiprocessing.get_context("fork")


class GaveUp(Exception):
    """A child cannot be kept alive; the message says which and why."""


@dataclass
class Child:
    """One process to keep alive; ``target`` never returns while all is well."""

    name: str
    target: Callable[[], None]
    tier: int
    """Children of a higher tier are stopped first, those of one tier together."""
    grace: timedelta = timedelta(seconds=10)
    on_give_up: Callable[[], None] | None = None
    """Called when it cannot be kept alive and the others go on without it; None: they are of no use then."""
    has_given_up: bool = False
    process: multiprocessing.process.BaseProcess | None = None
    deaths: int = 0
    started: float = 0.0
    restart_at: float | None = None
    deadline: Deadline = field(default_factory=lambda: Deadline(timedelta(0)))
    backoff: Backoff = field(default_factory=lambda: Backoff(timedelta(milliseconds=100), timedelta(seconds=10)))

    def start(self) -> None:
        """Fork it."""
        self.started = time.monotonic()
        self.restart_at = None
        self.process = _fork.Process(target=_run_child, args=(self.target, os.getpid()), name=self.name)
        self.process.start()

    def terminate(self) -> None:
        """Ask it to end; its grace period begins."""
        if self.process is not None:
            self.process.terminate()
            self.deadline = Deadline(self.grace)

    def await_end(self, at_once: Event) -> None:
        """Wait for its end until its grace period is over, or cut short; then kill it."""
        if self.process is None:
            return
        while self.alive and not self.deadline.expired and not at_once.is_set():
            self.process.join(0.1)
        if self.alive:
            log.warning("child_killed", child=self.name)
            self.process.kill()
        self.process.join(5)

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.is_alive()


def _run_child(target: Callable[[], None], parent: int) -> None:
    """In the child: a process group of its own (Ctrl-C and hangups are for the parent), no life without the parent."""
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        return
    target()


class Supervisor:
    """Owns the children; one thread uses it."""

    def __init__(self, children: Sequence[Child]) -> None:
        self._children = children

    def start(self) -> None:
        """Start all, in order."""
        for child in self._children:
            child.start()

    def watch(self, stop: Event, until: Callable[[], bool] | None = None) -> None:
        """Restart what dies, until ``stop`` is set or ``until`` holds.

        Raises
        ------
        GaveUp
            A child that is needed is wrongly configured, or died several times in a row.
        """
        while not stop.is_set() and not (until is not None and until()):
            running = [child.process.sentinel for child in self._children if child.process is not None and child.alive]
            wait(running, timeout=_LOOK_EVERY.total_seconds())
            for child in self._children:
                if not child.alive and not child.has_given_up:
                    self._revive_or_leave(child)

    def _revive_or_leave(self, child: Child) -> None:
        try:
            self._revive(child)
        except GaveUp as error:
            if child.on_give_up is None:
                raise
            child.has_given_up = True
            child.on_give_up()
            log.error("child_given_up", child=child.name, reason=str(error))  # noqa: TRY400 - says all

    def _revive(self, child: Child) -> None:
        if child.restart_at is None:
            exit_code = child.process.exitcode if child.process is not None else None
            if exit_code == WRONG_CONFIGURATION:
                raise GaveUp(f"{child.name} cannot start as configured; its line above says why.")
            if time.monotonic() - child.started > _STEADY.total_seconds():
                child.deaths = 0
                child.backoff.reset()
            child.deaths += 1
            if child.deaths >= _DEATHS_IN_A_ROW:
                raise GaveUp(f"{child.name} died {child.deaths} times in a row, the last time with status {exit_code}.")
            pause = child.backoff.pause()
            log.warning("child_died", child=child.name, exit_code=exit_code, restart_in=round(pause.total_seconds(), 2))
            child.restart_at = time.monotonic() + pause.total_seconds()
        elif time.monotonic() >= child.restart_at:
            child.start()

    def stop(self, at_once: Event) -> None:
        """Stop all, tier by tier: SIGTERM, a grace period that ``at_once`` cuts short, then SIGKILL."""
        for tier in sorted({child.tier for child in self._children}, reverse=True):
            alive = [child for child in self._children if child.tier == tier and child.alive]
            for child in alive:
                child.terminate()
            for child in alive:
                child.await_end(at_once)
