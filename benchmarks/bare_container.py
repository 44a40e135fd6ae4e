"""The floor of a small task: what the Docker SDK takes for one container, and nothing else."""

import time

import docker

INPUT_FILE = "/input/file"
OUTPUT_FOLDER = "/output"
IMAGE_COMMAND = ["/bin/cp", INPUT_FILE, OUTPUT_FOLDER]

_LONGEST_RUN_SECONDS = 60


def run_bare(engine: docker.DockerClient, image: str) -> float:
    """Create, start, wait, remove, as plainly as it goes; the seconds. No volume, no limit, no network either."""
    api = engine.api
    began = time.perf_counter()
    container = api.create_container(image, host_config=api.create_host_config(network_mode="none"))["Id"]
    api.start(container)
    ended = api.wait(container, timeout=_LONGEST_RUN_SECONDS)
    api.remove_container(container, v=True, force=True)
    seconds = time.perf_counter() - began
    if ended["StatusCode"] != 0:
        raise RuntimeError(f"the bare container ended with {ended}")
    return seconds
