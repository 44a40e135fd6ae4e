"""Addresses of gateways: what is one, what is none, and how they are reached."""

import socket
from datetime import timedelta
from pathlib import Path

import pytest

from online_worker.gateway_address import TcpAddress, UnixAddress, gateway_addresses
from tests.support.scripted_gateway import scripted_gateway

_SOON = timedelta(seconds=5)


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("tcp://models.example:5011", [TcpAddress("models.example", 5011)]),
        ("tcp://models.example", [TcpAddress("models.example", 5010)]),
        ("tcp://[::1]:5010/", [TcpAddress("::1", 5010)]),
        ("unix:///run/workers.sock", [UnixAddress(Path("/run/workers.sock"))]),
        ("unix:///run/a folder/ä#1?.sock", [UnixAddress(Path("/run/a folder/ä#1?.sock"))]),
        ("tcp://a:1, tcp://b:2,", [TcpAddress("a", 1), TcpAddress("b", 2)]),
    ],
)
def test_addresses_are_read(text: str, addresses: list[object]) -> None:
    assert gateway_addresses(text) == addresses


@pytest.mark.parametrize(
    "text",
    [
        *("", " , ", "models.example:5010", "http://a:1", "tcp://", "tcp://:5010", "tcp://a:0", "tcp://a:port"),
        *(
            "tcp://a:99999",
            "tcp://[::1:5010",
            "tcp://a:1/path",
            "unix://relative",
            "unix:relative",
            "tcp://a:1,tcp://a:1",
        ),
    ],
)
def test_what_is_no_address_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no address|names (no gateway|a gateway twice)"):
        gateway_addresses(text)


@pytest.mark.parametrize("text", ["tcp://a:5010", "tcp://[::1]:5010", "unix:///run/workers.sock"])
def test_an_address_is_shown_as_it_is_written(text: str) -> None:
    assert str(gateway_addresses(text)[0]) == text


@pytest.mark.parametrize("depth", [0, 12])
def test_a_socket_is_reached_however_deep_its_folder_lies(
    tmp_path: Path, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path.joinpath(*["a-folder-with-a-long-name"] * depth)
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(folder)

    with scripted_gateway(Path("s")) as gateway, UnixAddress(folder / "s").connect(_SOON) as connection:
        connection.sendall(b"hello")
        arrived = gateway.accept().socket.recv(5)

    assert arrived == b"hello"


def test_a_gateway_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    for address in (
        UnixAddress(tmp_path / "none"),
        UnixAddress(tmp_path / ("x" * 200) / "none"),
        TcpAddress("127.0.0.1", port),
    ):
        with pytest.raises(OSError, match=r"No such|File name too long|refused"):
            address.connect(_SOON)
