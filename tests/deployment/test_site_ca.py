"""A build trusts a site's own certificate authority when it is told of it, and only then."""

import base64
import hashlib
import ssl
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import docker
import pytest

from deployment.building import ImageBuildFailed, SiteCaError, build, site_ca
from tests.support.images import TEST_IMAGES

ROOT = Path(__file__).parents[2]
PACKAGE = "site-ca-proof"
TAG = f"{TEST_IMAGES}/site-ca:1"


@dataclass(frozen=True)
class Index:
    """A package index of the site, served over HTTPS."""

    url: str
    ca: str
    """PEM text."""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    folder = tmp_path_factory.mktemp("index")
    (folder / "simple" / PACKAGE).mkdir(parents=True)
    _write_wheel(folder / "simple" / PACKAGE / "site_ca_proof-1-py3-none-any.whl")
    ca = _make_certificates(folder)

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    with closing(_QuietServer(("127.0.0.1", 0), Handler)) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield Index(f"https://localhost:{server.server_port}/simple/", ca)
        server.shutdown()
        thread.join(60)


class _QuietServer(ThreadingHTTPServer):
    """Clients that refuse the certificate are what the test is about; they need no traceback."""

    def close(self) -> None:
        self.server_close()

    def handle_error(self, *_: object) -> None:
        pass


def _make_certificates(folder: Path) -> str:
    """An authority and a server certificate of it for localhost; the authority's text."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "2"]
    ca = ["-subj", "/CN=CA of a site", "-keyout", "ca.key", "-out", "ca.crt"]
    server = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-CA", "ca.crt", "-CAkey", "ca.key"]
    server += ["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "server.key", "-out", "server.crt"]
    for arguments in (ca, server):
        subprocess.run(
            ["openssl", "req", "-x509", *key, *arguments], cwd=folder, check=True, capture_output=True, timeout=60
        )
    return (folder / "ca.crt").read_text()


def _write_wheel(path: Path) -> None:
    metadata = "site_ca_proof-1.dist-info"
    files = {
        "site_ca_proof.py": b"",
        f"{metadata}/METADATA": f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1\n".encode(),
        f"{metadata}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(content)}\n"
            wheel.writestr(name, content)
        wheel.writestr(f"{metadata}/RECORD", f"{record}{metadata}/RECORD,,\n")


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """The repository's own Dockerfile beside a service that needs one package, which is in no public index."""
    for name in ("Dockerfile", ".dockerignore", "deployment/requirements.py", "deployment/slimming.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    for name in ("contracts", "service_kit", "public_api"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "constraints.txt").touch()
    (tmp_path / "pyproject.toml").write_text(
        f'[project]\ndependencies = ["{PACKAGE}"]\n[tool.inference-server.images]\npublic_api = ["{PACKAGE}"]\n'
    )
    return tmp_path


@pytest.fixture
def arguments(index: Index, python_base_image: str) -> dict[str, str]:
    return {"PYTHON_IMAGE": python_base_image, "PIP_INDEX_URL": index.url}


def _installed(engine: docker.DockerClient) -> bytes:
    try:
        return engine.containers.run(
            TAG, ["python", "-c", f"import {PACKAGE.replace('-', '_')}; print('here')"], remove=True
        )
    finally:
        engine.images.remove(TAG, force=True)


def test_a_build_does_not_trust_the_sites_authority_by_itself(
    image_engine: docker.DockerClient, context: Path, arguments: dict[str, str]
) -> None:
    with pytest.raises(ImageBuildFailed, match="certificate verify failed"):
        build(image_engine, context, TAG, arguments, network="host")


def test_the_argument_lets_pip_trust_it_and_leaves_no_trace(
    image_engine: docker.DockerClient, context: Path, arguments: dict[str, str], index: Index
) -> None:
    build(image_engine, context, TAG, arguments | {"SITE_CA": index.ca}, network="host")

    history = image_engine.images.get(TAG).history()
    assert "CERTIFICATE" not in str(history)
    assert _installed(image_engine) == b"here\n"


def test_a_file_in_the_context_does_the_same(
    image_engine: docker.DockerClient, context: Path, arguments: dict[str, str], index: Index
) -> None:
    """A whole bundle is too long for an argument."""
    (context / "site-ca.pem").write_text(index.ca)

    build(image_engine, context, TAG, arguments, network="host")

    assert _installed(image_engine) == b"here\n"


def test_the_sites_authority_is_a_text_or_the_file_that_pip_reads(index: Index, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text(index.ca)

    assert site_ca({"SITE_CA": index.ca, "PIP_CERT": "/not/asked"}) == index.ca
    assert site_ca({"SITE_CA": str(tmp_path / "ca.crt")}) == index.ca
    assert site_ca({"PIP_CERT": str(tmp_path / "ca.crt"), "SSL_CERT_FILE": "/not/asked"}) == index.ca
    assert site_ca({"PIP_CERT": "", "SSL_CERT_FILE": ""}) is None


@pytest.mark.parametrize("content", [None, "no certificate", "-----BEGIN PRIVATE KEY-----\n"])
def test_a_file_that_holds_no_certificate_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.crt"
    if content is not None:
        path.write_text(content)

    with pytest.raises(SiteCaError, match=f"PIP_CERT={path}"):
        site_ca({"PIP_CERT": str(path)})
