"""Fixtures for all tests; each family of real servers has a module of its own in tests/support."""

import signal

pytest_plugins = [
    "tests.support.rabbitmq",
    "tests.support.postgres",
    "tests.support.docker_engine",
    "tests.support.platform",
    "tests.support.task_rows",
    "tests.support.images",
    "tests.support.base_images",
    "tests.support.hostile_models",
    "tests.support.model_folders",
    "tests.support.traefik",
    "tests.support.outside_host",
    "tests.support.swarm",
]


def pytest_configure() -> None:
    """A run in the background of a shell ignores Ctrl-C, and would hand that on to the processes that it tests."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
