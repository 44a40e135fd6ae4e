"""What can be said of this machine's engine before any runner exists."""

from datetime import timedelta

from job_consumer.runner.base import RunnerError
from job_consumer.runner.docker.engine import Engine
from job_consumer.runner.docker.images import Images


def engine_answers() -> bool:
    """Whether a Docker engine answers here (DOCKER_HOST and its kin are honoured)."""
    engine = Engine()
    try:
        engine.check_afresh()
    except RunnerError:
        return False
    return True


def has_image(tag: str) -> bool:
    """Whether the engine has the image already.

    Raises
    ------
    RunnerError
        The engine does not answer.
    """
    engine = Engine()
    try:
        return Images(engine, "never", timedelta(0)).has(tag)
    finally:
        engine.close()
