"""One image build on an engine: its errors in our words, and what a site's network needs lent to it."""

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import docker
from docker.errors import APIError, BuildError, DockerException, ImageNotFound

ENGINE_SECONDS = 900
"""The longest silence of the engine during one request of a build."""

_LAST_LINES = 20


class ImageBuildFailed(Exception):
    """A build ended without an image; the message holds the end of its log."""


class SiteCaError(Exception):
    """The certificate authority of the site cannot be read; the message names the file."""


@contextmanager
def engine_at(address: str | None) -> Iterator[docker.DockerClient]:
    """The engine of this address, else of DOCKER_HOST or the local socket, with the patience that builds need."""
    engine = (
        docker.DockerClient(base_url=address, timeout=ENGINE_SECONDS)
        if address
        else docker.from_env(timeout=ENGINE_SECONDS)
    )
    try:
        yield engine
    finally:
        engine.close()


def no_engine(error: DockerException) -> str:
    """The sentence for a command that found no engine."""
    return f"No Docker engine answers; start it or name one with --engine. ({error})"


def image_id(engine: docker.DockerClient, tag: str) -> str | None:
    """What the tag stands for on this engine, if anything."""
    try:
        return str(engine.images.get(tag).id)
    except ImageNotFound:
        return None


def build(
    engine: docker.DockerClient,
    context: Path,
    tag: str,
    arguments: Mapping[str, str],
    *,
    network: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Build the Dockerfile in the context under the tag, with the classic builder. ``network`` is that of RUN steps.

    Raises
    ------
    ImageBuildFailed
        The Dockerfile failed or the engine refused.
    """
    try:
        engine.images.build(
            path=str(context),
            tag=tag,
            buildargs=dict(arguments),
            network_mode=network,
            labels=dict(labels or {}),
            rm=True,
            forcerm=True,
            timeout=ENGINE_SECONDS,
        )
    except BuildError as error:
        said = "".join(str(line.get("stream", "")) for line in error.build_log).splitlines()
        raise ImageBuildFailed(f"{tag}: {error}\n" + "\n".join(said[-_LAST_LINES:])) from error
    except APIError as error:
        raise ImageBuildFailed(f"{tag}: {error.explanation or error}") from error


def site_ca(environment: Mapping[str, str] = os.environ) -> str | None:
    """The certificates that pip on this machine trusts, for pip inside a build; None where nothing is said.

    ``SITE_CA`` is the text of a certificate authority, or the path of its file; else the bundles of ``PIP_CERT`` and
    ``SSL_CERT_FILE`` count, which pip itself reads.

    Raises
    ------
    SiteCaError
        The file cannot be read, or holds no certificate.
    """
    name = next((name for name in ("SITE_CA", "PIP_CERT", "SSL_CERT_FILE") if environment.get(name)), None)
    if name is None:
        return None
    text, place = environment[name], name
    if "-----BEGIN" not in text:
        place = f"{name}={text}"
        try:
            text = Path(text).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SiteCaError(f"{place}: cannot be read ({error})") from error
    if "-----BEGIN CERTIFICATE-----" not in text and "-----BEGIN TRUSTED CERTIFICATE-----" not in text:
        raise SiteCaError(f"{place}: holds no certificate in PEM form")
    return text


def trusted_certificates(environment: Mapping[str, str] = os.environ) -> str | None:
    """What :func:`site_ca` found, and the public authorities of this machine; for a pip that is given one bundle.

    Raises
    ------
    SiteCaError
        See :func:`site_ca`.
    """
    own = site_ca(environment)
    public = ssl.get_default_verify_paths().cafile
    if own is None or public is None:
        return own
    return own.rstrip() + "\n" + Path(public).read_text(encoding="utf-8")
