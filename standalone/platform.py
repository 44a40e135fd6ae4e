"""Puts the services together on one machine: both APIs, the online gateway, N consumers; SQLite and no broker."""

import secrets
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import httpx

import job_consumer.main
import online_gateway.main
import private_api.main
import public_api.main
from contracts.errors import Unavailable
from contracts.model_file import ModelFile
from contracts.routes import HEALTH_READY
from inference_client import ClientError, InferenceClient
from job_consumer.config import JobConsumerSettings
from online_gateway.config import OnlineGatewaySettings
from online_gateway.endpoint_config import GatewayFile
from private_api.config import PrivateApiSettings, database_in
from public_api.config import PublicApiSettings
from service_kit import logging
from service_kit.deadline import Deadline
from service_kit.lifecycle import bind, is_loopback
from service_kit.settings import load
from service_kit.signals import stop_on_signals
from service_kit.token_file import token_in
from standalone.examples import register
from standalone.online import Endpoints, OnlineDoor, endpoints_of
from standalone.runners import Choice, choose_runner, gpu_uuids, missing_needs, model_folders
from standalone.supervisor import Child, GaveUp, Supervisor

READY_WITHIN = timedelta(seconds=60)
ENDPOINTS_WITHIN = timedelta(seconds=120)
_DRAIN = timedelta(seconds=5)
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Options:
    """What ``infer up`` was asked for."""

    data: Path
    host: str
    port: int
    online_port: int
    endpoints: Path | None
    """The user's file of online endpoints."""
    runner: str
    workers: int | None
    models: Path | None
    wants_models: bool
    """Whether the folders in ``models`` are there to be run, rather than just known."""
    examples: bool
    log_level: str


def run(options: Options) -> int:
    """Run until Ctrl-C or SIGTERM; the exit status.

    Raises
    ------
    OSError
        The data folder cannot be made.
    PlatformError
        The port is taken, or what was asked for is not to be had here; the message says why.
    """
    logging.configure("infer-up", options.log_level)
    folders = model_folders(options.models) if options.models else []
    choice = choose_runner(options.runner, folders if options.wants_models else [])
    cards = gpu_uuids()
    endpoints = endpoints_of(options.endpoints, options.models if options.examples else None)
    options.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (
        _listener(options.host, options.port, "--port") as public,
        _listener(options.host, options.online_port, "--online-port") as online,
        bind(_LOOPBACK, 0) as private,
    ):
        url, door = _url(public), OnlineDoor(_url(online))
        listeners = _Listeners(public, private, online)
        supervisor = Supervisor(_children(options, choice, cards, endpoints.file, listeners))
        stop, at_once = threading.Event(), threading.Event()
        with stop_on_signals(stop, on_second=at_once.set):
            try:
                supervisor.start()
                _wait_until_ready(supervisor, url, stop)
                if options.examples and not stop.is_set():
                    _register_all(url, folders, choice, has_gpu=bool(cards))
                _await_endpoints(supervisor, endpoints, door, stop)
                if not stop.is_set():
                    _say(_ready_line(options, choice, url, _workers(options, cards)))
                    _say(door.line())
                supervisor.watch(stop)
            except GaveUp as error:
                sys.stderr.write(f"infer up: {error}\n")
                return 1
            finally:
                private.close()  # a consumer that waits for a private_api that never came must not wait on
                supervisor.stop(at_once)
    return 0


@dataclass(frozen=True)
class _Listeners:
    public: socket.socket
    private: socket.socket
    online: socket.socket

    def closing_others(self, own: socket.socket | None, run_service: Callable[[], None]) -> Callable[[], None]:
        """A service that keeps only its own listener open."""

        def target() -> None:
            for listener in (self.public, self.private, self.online):
                if listener is not own:
                    listener.close()
            run_service()

        return target


def _listener(host: str, port: int, option: str) -> socket.socket:
    try:
        return bind(host, port)
    except OSError as error:
        raise Unavailable(
            f"Cannot listen on {host}:{port}: {error.strerror}; choose another --host or {option}."
        ) from error


def _workers(options: Options, cards: list[str]) -> int:
    return options.workers or max(1, len(cards))


def _children(
    options: Options, choice: Choice, cards: list[str], endpoints: GatewayFile, listeners: _Listeners
) -> list[Child]:
    token = secrets.token_urlsafe(32)
    private_settings = load(
        PrivateApiSettings,
        database_url=database_in(options.data),
        data_dir=options.data.resolve(),
        internal_token=token,
        rabbitmq_url=None,
        log_level=options.log_level,
    )
    public_settings = load(
        PublicApiSettings,
        private_api_url=_url(listeners.private),
        internal_token=token,
        allow_public_post_model=is_loopback(options.host),
        log_level=options.log_level,
    )

    def run_private() -> None:
        private_api.main.run(private_settings, listeners.private)

    def run_public() -> None:
        public_api.main.run(public_settings, listeners.public)

    return [
        Child("private_api", listeners.closing_others(listeners.private, run_private), tier=0),
        Child("public_api", listeners.closing_others(listeners.public, run_public), tier=1),
        _gateway(options, endpoints, listeners),
        *_consumers(options, choice, cards, token, listeners),
    ]


def _gateway(options: Options, endpoints: GatewayFile, listeners: _Listeners) -> Child:
    folder = options.data.resolve() / "online"
    settings = load(
        OnlineGatewaySettings,
        data_dir=folder,
        worker_token=token_in(folder / "worker_token"),
        endpoints_file=None,
        host=options.host,
        port=options.online_port,
        call_drain_seconds=_DRAIN.total_seconds(),
        log_level=options.log_level,
    )

    def run_gateway() -> None:
        online_gateway.main.run(settings, listeners.online, endpoints)

    target = listeners.closing_others(listeners.online, run_gateway)
    return Child(
        "online_gateway", target, tier=1, grace=3 * _DRAIN + timedelta(seconds=10), on_give_up=listeners.online.close
    )


def _consumers(
    options: Options, choice: Choice, cards: list[str], token: str, listeners: _Listeners
) -> Iterator[Child]:
    for number in range(_workers(options, cards)):
        settings = load(
            JobConsumerSettings,
            private_api_url=_url(listeners.private),
            internal_token=token,
            rabbitmq_url=None,
            scratch_dir=options.data.resolve() / "scratch",
            runner=choice.runner,
            models_folder=options.models,
            gpu_uuid=cards[number] if number < len(cards) else None,
            drain_seconds=_DRAIN.total_seconds(),
            log_level=options.log_level,
        )
        target = listeners.closing_others(None, partial(job_consumer.main.run, settings))
        yield Child(f"job_consumer {number + 1}", target, tier=2, grace=_DRAIN + timedelta(seconds=10))


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _wait_until_ready(supervisor: Supervisor, url: str, stop: threading.Event) -> None:
    deadline = Deadline(READY_WITHIN)

    def ready() -> bool:
        if deadline.expired:
            raise Unavailable(
                f"The platform was not ready within {READY_WITHIN.total_seconds():g} s; see the log above."
            )
        try:
            return httpx.get(url + HEALTH_READY, timeout=2, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    supervisor.watch(stop, until=ready)


def _await_endpoints(supervisor: Supervisor, endpoints: Endpoints, door: OnlineDoor, stop: threading.Event) -> None:
    """Wait until they can be called, where their file asks for that, but not for one that will not come."""
    for line in endpoints.left_out:
        _say(line)
    if endpoints.are_awaited:
        deadline = Deadline(ENDPOINTS_WITHIN)
        supervisor.watch(stop, until=lambda: deadline.expired or door.are_settled())


def _register_all(url: str, folders: list[tuple[Path, ModelFile]], choice: Choice, *, has_gpu: bool) -> None:
    with InferenceClient(url) as client:
        for folder, model in folders:
            reason = missing_needs(model, choice, has_gpu=has_gpu)
            if reason is not None:
                _say(f"  {model.human_readable_id}: not registered, {reason}")
                continue
            try:
                new = register(client, folder, model)
            except ClientError as error:
                _say(f"  {model.human_readable_id}: not registered, {error}")
                continue
            _say(f"  {model.human_readable_id}: {'registered' if new else 'registered before'}")


def _ready_line(options: Options, choice: Choice, url: str, workers: int) -> str:
    plural = "worker" if workers == 1 else "workers"
    line = (
        f"InferenceServer is ready at {url} "
        f"({workers} {plural}, {choice.runner} runner: {choice.reason}; data in {options.data})"
    )
    if not is_loopback(options.host):
        line += "\nIt listens beyond this machine, without TLS: whoever reaches the port may post tasks."
    return line


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the command's own output
