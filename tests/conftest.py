"""Fixtures for all tests; each family of real servers has a module of its own in tests/support."""

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
