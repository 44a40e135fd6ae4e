"""Runs models as sibling containers through the Docker engine.

``runner`` prepares, ``run`` is one attempt, ``exchange`` moves input and output, ``model_volumes`` keeps model content,
``profile`` is what a model container may do, ``debris`` finds what dead attempts left, ``engine`` is the connection.
"""

from job_consumer.runner.docker.exchange import VolumeMode
from job_consumer.runner.docker.images import PullPolicy
from job_consumer.runner.docker.runner import DockerRunner

__all__ = ["DockerRunner", "PullPolicy", "VolumeMode"]
