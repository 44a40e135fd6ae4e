import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from job_consumer.attempt import Attempt
from job_consumer.consumer import Consumer
from job_consumer.executor import Executor
from job_consumer.inbox.base import Offer
from job_consumer.inbox.polling import PollingInbox
from job_consumer.leases import LeaseKeeper
from job_consumer.private_api import PrivateApi
from job_consumer.pulse import Pulse
from job_consumer.runner.base import Run
from job_consumer.transfers import Transfers
from tests.support.fake_runner import FakeRunner
from tests.support.http_server import serving
from tests.support.scripted_private_api import ScriptedPrivateApi

LEASE = timedelta(seconds=0.4)


class ListedInbox(PollingInbox):
    """The real long poll, which also remembers what became of each offer."""

    def __init__(self, client: PrivateApi) -> None:
        super().__init__(client, longest_poll=timedelta(seconds=0.2))
        self.fates: list[tuple[str, str]] = []

    def next(self, timeout: timedelta) -> Offer | None:
        offer = super().next(timeout)
        if offer is not None:
            self.fates.append(("offered", offer.uid))
        return offer

    def settle(self, offer: Offer) -> None:
        self.fates.append(("settled", offer.uid))

    def give_back(self, offer: Offer) -> None:
        self.fates.append(("given back", offer.uid))


class Rig:
    """A consumer's parts around a scripted runner and a scripted private_api."""

    def __init__(self, script: ScriptedPrivateApi, url: str, scratch: Path, transfers: Transfers) -> None:
        self.script = script
        self.scratch = scratch
        self.runner = FakeRunner()
        self.private_api = PrivateApi(url, "token", "me", has_gpu=False)
        self.leases = LeaseKeeper(self.private_api, LEASE)
        self.executor = Executor(self.private_api, self.runner, self.leases, transfers)
        self.inbox = ListedInbox(self.private_api)
        self.stop = threading.Event()
        self.hurry = threading.Event()
        self.pulse = Pulse(self.stop, scratch)
        self._transfers = transfers

    def attempt(self, uid: str) -> Attempt:
        """Claim the task, as the loop does, and keep its lease."""
        attempt = Attempt(self.script.claim(uid), "me")
        self.leases.keep(attempt)
        return attempt

    def work_on(self, uid: str, staged: Callable[[Attempt], Run | None] = lambda _: None) -> Attempt:
        """One attempt from its claim to its end."""
        attempt = self.attempt(uid)
        self.executor.complete(self.executor.run(attempt, staged))
        return attempt

    def transfers_left(self) -> list[str]:
        """Files of transfers on disk; the lock of the folder is none."""
        return sorted(
            str(p.relative_to(self.scratch))
            for p in self.scratch.rglob("*")
            if p.name not in {"transfers", "me", "lock"}
        )

    @contextmanager
    def consuming(self, grace: timedelta = timedelta(seconds=10)) -> Iterator[threading.Thread]:
        """A consumer's loop in a thread; stopped, drained and joined at the end."""
        consumer = Consumer(
            "me", self.private_api, self.inbox, self.runner, self.executor, self.leases, grace, self.hurry, self.pulse
        )
        thread = threading.Thread(target=consumer.run, args=(self.stop,), name="consumer")
        thread.start()
        try:
            yield thread
        finally:
            for act in self.runner.acts.values():
                act.gate.set()
            self.script.hold_inputs = False
            self.script.away = False
            self.stop.set()
            thread.join(60)
            assert not thread.is_alive(), "the consumer did not stop"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    script = ScriptedPrivateApi()
    with serving(script.app) as url, Transfers(tmp_path, "me") as transfers:
        rig = Rig(script, url, tmp_path, transfers)
        rig.leases.start()
        yield rig
        rig.leases.close()
        rig.private_api.close()
        assert rig.transfers_left() == [], "a transfer was left on the disk"
        assert [run.discards for run in rig.runner.runs] == [1] * len(rig.runner.runs), "each run is discarded once"
