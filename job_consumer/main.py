"""Builds and runs one consumer."""

import os
import secrets
import socket
import threading
from contextlib import closing
from datetime import timedelta
from typing import Literal

from contracts.errors import PlatformError
from contracts.queue import queues_of
from contracts.tasks import ConsumerPresence, PlatformInfo
from job_consumer.cards import NoCard, uuid_of
from job_consumer.config import JobConsumerSettings
from job_consumer.consumer import Consumer
from job_consumer.executor import Executor
from job_consumer.inbox.base import Inbox
from job_consumer.inbox.polling import PollingInbox
from job_consumer.leases import LeaseKeeper
from job_consumer.presence import Announcer
from job_consumer.private_api import PrivateApi
from job_consumer.pulse import Pulse
from job_consumer.runner.base import Runner
from job_consumer.sweeper import Sweeper
from job_consumer.transfers import Transfers
from service_kit import logging
from service_kit.backoff import Backoff
from service_kit.settings import end_misconfigured, load
from service_kit.signals import stop_on_signals

log = logging.get_logger(__name__)


def run(settings: JobConsumerSettings) -> None:
    """Consume until a stop signal; a second one hands the running task back at once."""
    logging.configure("job_consumer", settings.log_level, settings.log_format)
    _check_folders(settings)
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    private_api = PrivateApi(
        settings.private_api_url,
        settings.internal_token.get_secret_value(),
        name,
        has_gpu=settings.has_gpu,
        takes_cpu=settings.take_cpu_tasks,
    )
    stop = threading.Event()
    hurry = threading.Event()
    with stop_on_signals(stop, on_second=hurry.set), Pulse(stop) as pulse:
        platform = _platform(private_api, stop, pulse)
        if platform is not None:
            _consume(settings, name, private_api, platform, stop, hurry, pulse)
    private_api.close()


def _check_folders(settings: JobConsumerSettings) -> None:
    """End the process where a folder is missing without which no task could ever run."""
    if settings.runner == "process" and settings.models_folder is None:
        end_misconfigured("MODELS_FOLDER: the process runner needs the folder of its models")
    try:
        settings.scratch_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        end_misconfigured(f"SCRATCH_DIR: {settings.scratch_dir} cannot be made ({error.strerror})")
    if not os.access(settings.scratch_dir, os.W_OK | os.X_OK):
        end_misconfigured(f"SCRATCH_DIR: {settings.scratch_dir} must be writable for user {os.geteuid()}; chown it")


def _consume(
    settings: JobConsumerSettings,
    name: str,
    private_api: PrivateApi,
    platform: PlatformInfo,
    stop: threading.Event,
    hurry: threading.Event,
    pulse: Pulse,
) -> None:
    kind = runner_kind(settings)
    presence = ConsumerPresence(
        host=socket.gethostname(), has_gpu=settings.has_gpu, takes_cpu=settings.take_cpu_tasks, runner=kind
    )
    announcer = Announcer(private_api, presence)
    card = _card(settings, announcer, stop, pulse)
    if settings.has_gpu and card is None:
        return
    announcer.has_card(card)
    leases = LeaseKeeper(private_api, timedelta(seconds=platform.lease_seconds))
    with (
        closing(build_runner(settings, kind, platform, name, card)) as runner,
        Transfers(settings.scratch_dir, name) as zips,
    ):
        sweeper = Sweeper(runner, private_api, timedelta(seconds=settings.sweep_seconds))
        threading.Thread(target=sweeper.run, args=(stop,), name="sweeper", daemon=True).start()
        threading.Thread(target=announcer.run, args=(runner, stop), name="presence", daemon=True).start()
        leases.start()
        executor = Executor(private_api, runner, leases, zips)
        inbox = build_inbox(settings, private_api)
        pulse.needs("sweeper", "presence", "leases")
        grace = timedelta(seconds=settings.drain_seconds)
        log.info("consumer_ready", consumer=name, runner=kind, gpu=card)
        Consumer(name, private_api, inbox, runner, executor, leases, grace, hurry, pulse).run(stop)
        leases.close()
    log.info("consumer_stopped", consumer=name)


def build_inbox(settings: JobConsumerSettings, private_api: PrivateApi) -> Inbox:
    """RabbitMQ where a URL is given, else the long poll."""
    if settings.rabbitmq_url is None:
        return PollingInbox(private_api)
    from job_consumer.inbox.rabbitmq import RabbitInbox

    return RabbitInbox(settings.rabbitmq_url.get_secret_value(), queues_of(settings.has_gpu, settings.take_cpu_tasks))


def runner_kind(settings: JobConsumerSettings) -> Literal["docker", "process"]:
    """The runner that the settings ask for; ``auto`` looks for an engine."""
    if settings.runner == "auto":
        from job_consumer.runner.docker.local import engine_answers

        return "docker" if engine_answers() else "process"
    return settings.runner


def build_runner(
    settings: JobConsumerSettings,
    kind: Literal["docker", "process"],
    platform: PlatformInfo,
    name: str,
    gpu_uuid: str | None,
) -> Runner:
    """The runner; its libraries are imported only where it is used.

    A process runner without its models folder ends the process with one line: it could run nothing.
    """
    if kind == "docker":
        from job_consumer.runner.docker import DockerRunner

        return DockerRunner(
            scratch=settings.scratch_dir,
            installation=platform.installation,
            consumer=name,
            archive_limits=settings.archive_limits,
            max_output_bytes=settings.max_output_bytes,
            gpu_uuid=gpu_uuid,
            mode=settings.volume_mode,
        )
    if settings.models_folder is None:
        end_misconfigured(
            "MODELS_FOLDER: no Docker engine answers, and the process runner needs the folder of its models"
        )
    from job_consumer.runner.process import ProcessRunner

    return ProcessRunner(
        scratch=settings.scratch_dir,
        model_folders=[settings.models_folder],
        consumer=name,
        gpu_uuid=gpu_uuid,
        archive_limits=settings.archive_limits,
        max_output_bytes=settings.max_output_bytes,
    )


def _platform(private_api: PrivateApi, stop: threading.Event, pulse: Pulse) -> PlatformInfo | None:
    """What the platform is, as soon as it answers; None when a stop signal came first."""
    backoff = Backoff()
    while not stop.is_set():
        pulse.turn()
        try:
            return private_api.platform()
        except PlatformError as error:
            log.warning("waiting_for_private_api", error=error.message)
            stop.wait(backoff.pause().total_seconds())
    return None


def _card(settings: JobConsumerSettings, announcer: Announcer, stop: threading.Event, pulse: Pulse) -> str | None:
    """The UUID of this consumer's card, as soon as the driver tells; None without a card, or when a stop signal came.

    A restart would not bring the card, and whoever waits for it asks the platform: so we stay, and say there what is
    missing.
    """
    if settings.gpu_index is None:
        return settings.gpu_uuid
    backoff = Backoff()
    while not stop.is_set():
        pulse.turn()
        try:
            return uuid_of(settings.gpu_index)
        except NoCard as error:
            log.warning("waiting_for_the_card", error=str(error))
            announcer.say(str(error))
            stop.wait(backoff.pause().total_seconds())
    return None


def main() -> None:
    """Entry point of the service."""
    run(load(JobConsumerSettings))
