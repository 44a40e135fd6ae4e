"""Workers dialling in: who is taken in, who is not, and who is given up."""

import asyncio
import errno
import os
import secrets
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from contracts.worker_protocol import (
    CHUNK_BYTES,
    HEADER_BYTES,
    MAX_UNPROVEN_FRAME_BYTES,
    PROTOCOL_VERSION,
    UNIX_BUFFER_BYTES,
    Call,
    Calls,
    Challenge,
    Heartbeat,
    Notification,
    Refused,
    frame,
)
from tests.support.gateway_core import GatewayCore, in_an_event_loop, until
from tests.support.scripted_worker import Peer, ScriptedWorker

MORE_CALLS_THAN_A_SOCKET_HOLDS = 4 * UNIX_BUFFER_BYTES // CHUNK_BYTES
"""Of a mebibyte each; Linux counts twice what it is asked for, and the other side's transport takes some."""


@in_an_event_loop
async def test_a_worker_that_knows_the_token_joins_over_unix_and_tcp(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        port = await core.port.listen_tcp("127.0.0.1", 0)

        near = await core.worker("near")
        far = await ScriptedWorker("far").connect(("127.0.0.1", port))

        assert near.welcome is not None
        assert far.welcome is not None
        assert far.welcome.silence_seconds == 5
        members = core.pools.members("vectors")
        assert [(link.worker_id, link.host, link.pid) for link in members] == [
            ("near", "a-host", 42),
            ("far", "a-host", 42),
        ]
        assert members[1].peer.startswith("127.0.0.1:")
        assert str(os.getpid()) in members[0].peer
        far.die()
        await until(lambda: len(core.pools.members("vectors")) == 1)


@in_an_event_loop
async def test_a_wrong_token_is_refused_for_good_and_logged_once_with_the_address_alone(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        port = await core.port.listen_tcp("127.0.0.1", 0)
        with capture_logs() as logs:
            worker = await ScriptedWorker(token="not-the-token").connect(("127.0.0.1", port))
            await until(worker.peer.closed.done)

        assert worker.refused is not None
        assert worker.refused.is_final
        assert "WORKER_TOKEN" in worker.refused.message
        assert [log["event"] for log in logs] == ["worker_refused"]
        assert logs[0]["peer"].startswith("127.0.0.1:")
        assert "not-the-token" not in str(logs)
        assert core.port.connections() == []


@in_an_event_loop
async def test_another_version_is_refused_with_both_versions(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        worker = await core.worker(version=PROTOCOL_VERSION + 6)

        assert worker.refused is not None
        assert worker.refused.is_final
        assert f"version {PROTOCOL_VERSION + 6}" in worker.refused.message
        assert f"version {PROTOCOL_VERSION}" in worker.refused.message


@in_an_event_loop
async def test_a_pool_that_nothing_is_configured_for_is_refused_but_not_for_good(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path, refusal=lambda pool: f"No endpoint {pool!r}.") as core:
        worker = await core.worker()

        assert worker.refused == Refused("No endpoint 'vectors'.", is_final=False)


@pytest.mark.parametrize(
    "first",
    [
        pytest.param((MAX_UNPROVEN_FRAME_BYTES + 1).to_bytes(HEADER_BYTES, "big"), id="a frame that is too long"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", id="another protocol"),
        pytest.param(bytes(frame(Heartbeat())), id="a heartbeat before Hello"),
        pytest.param(b"\0\0\0\4\xc1\xc1\xc1\xc1", id="no msgpack"),
    ],
)
@in_an_event_loop
async def test_what_is_no_hello_ends_the_connection(tmp_path: Path, first: bytes) -> None:
    async with GatewayCore(tmp_path) as core:
        _, peer = await asyncio.get_running_loop().create_unix_connection(Peer, str(core.socket))
        peer.transport.write(first)

        await until(peer.closed.done)

        assert [type(message) for message in peer.messages] == [Challenge, Refused]
        assert core.port.connections() == []


@in_an_event_loop
async def test_who_does_not_say_hello_in_time_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("online_gateway.workers.connection._HANDSHAKE_SECONDS", 0.2)

    async with GatewayCore(tmp_path) as core:
        _, silent = await asyncio.get_running_loop().create_unix_connection(Peer, str(core.socket))
        worker = await core.worker()

        await until(silent.closed.done)

        assert worker.is_connected


@in_an_event_loop
async def test_a_flood_of_connections_from_the_network_does_not_keep_local_workers_out(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with GatewayCore(tmp_path) as core:
        port = await core.port.listen_tcp("127.0.0.1", 0)
        flood = [(await loop.create_connection(Peer, "127.0.0.1", port))[1] for _ in range(80)]
        await until(lambda: sum(peer.closed.done() for peer in flood) == 16)

        assert (await core.worker("local")).is_connected
        assert not (await ScriptedWorker("far").connect(("127.0.0.1", port))).is_connected

        for peer in flood:
            peer.transport.abort()
        await until(lambda: len(core.port._open) == 1)
        assert (await ScriptedWorker("later").connect(("127.0.0.1", port))).is_connected


@in_an_event_loop
async def test_a_silent_worker_is_lost_and_one_that_beats_is_not(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path, silence_seconds=0.5) as core:
        alive = await core.worker("alive")
        silent = await core.worker("silent", beats=False)

        with capture_logs() as logs:
            await until(silent.peer.closed.done, within=5)

        assert [link.worker_id for link in core.pools.members("vectors")] == ["alive"]
        assert alive.peer.of(Heartbeat)
        assert "said nothing for 0.5 s" in str(logs)
        assert core.pools.members("vectors")[0].memory_bytes == 1


@in_an_event_loop
async def test_a_worker_that_beats_and_reads_nothing_is_lost_when_it_may_not_be_busy_any_more(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path, silence_seconds=0.5, stall_seconds=1.0) as core:
        worker = await core.worker()
        link = core.pools.members("vectors")[0]
        worker.peer.transport.pause_reading()

        for _ in range(MORE_CALLS_THAN_A_SOCKET_HOLDS):
            link.send(Calls([Call(1, "vectors", 1, {"x": "y" * CHUNK_BYTES}, None, [])], together=False))
        blocked = asyncio.create_task(link.writable())

        await until(lambda: not link.is_open, within=5)
        with pytest.raises(ConnectionError):
            await blocked


@in_an_event_loop
async def test_who_sends_much_waits_until_the_worker_has_read_it(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        worker = await core.worker()
        link = core.pools.members("vectors")[0]
        worker.peer.transport.pause_reading()
        for _ in range(MORE_CALLS_THAN_A_SOCKET_HOLDS):
            link.send(Calls([Call(1, "vectors", 1, {"x": "y" * CHUNK_BYTES}, None, [])], together=False))
        waiting = asyncio.create_task(link.writable())
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
        worker._take = lambda _: None  # it reads and answers nothing
        worker.peer._on_message = lambda _: None

        worker.peer.transport.resume_reading()

        await asyncio.wait_for(waiting, 10)


@in_an_event_loop
async def test_the_newer_of_two_connections_with_one_id_wins(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        old = await core.worker("twin")
        new = await core.worker("twin")

        await until(old.peer.closed.done)

        assert new.is_connected
        assert [link.worker_id for link in core.port.connections()] == ["twin"]
        assert len(core.pools.members("vectors")) == 1


@in_an_event_loop
async def test_a_worker_that_stops_speaking_the_protocol_is_lost_and_the_port_goes_on(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        worker = await core.worker()

        worker.peer.transport.write(b"\0\0\0\1\xc1")

        await until(worker.peer.closed.done)
        assert core.pools.members("vectors") == []
        assert (await core.worker("next")).is_connected


@in_an_event_loop
async def test_a_worker_that_leaves_is_no_member_any_more(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        worker = await core.worker()

        worker.leave()

        await until(lambda: not core.pools.members("vectors"))


@in_an_event_loop
async def test_notifications_are_kept_until_they_are_taken(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        worker = await core.worker()
        for number in range(1200):
            worker.send(Notification("vectors", "drift", f"note {number}", float(number)))
        worker.send(Notification("others", "drift", "the last", 1200.0))
        await until(lambda: "others" in core.notifications._by_endpoint)

        taken = core.notifications.take("vectors")

        assert [taken[0].message, taken[-1].message, len(taken)] == ["note 200", "note 1199", 1000]
        assert [one.message for one in core.notifications.take()] == ["the last"]
        assert core.notifications.take() == []


@in_an_event_loop
async def test_the_socket_may_have_a_long_path_and_belongs_to_the_user_alone(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 150)
    folder.mkdir()

    async with GatewayCore(folder) as core:
        assert core.socket.stat().st_mode & 0o777 == 0o600
        handle = os.open(folder, os.O_PATH)
        try:
            worker = await ScriptedWorker().connect(Path(f"/proc/self/fd/{handle}/workers.sock"))
        finally:
            os.close(handle)
        assert worker.is_connected
        worker.die()
    assert not core.socket.exists()


@in_an_event_loop
async def test_a_second_gateway_on_the_socket_is_told_so_and_a_dead_ones_socket_is_taken_over(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        with pytest.raises(OSError, match="Another gateway") as refused:
            await GatewayCore(tmp_path).port.listen_unix(core.socket)
        assert refused.value.errno == errno.EADDRINUSE
    core.socket.write_text("left behind")

    async with GatewayCore(tmp_path) as core:
        assert (await core.worker()).is_connected


@in_an_event_loop
async def test_random_bytes_from_a_stranger_never_disturb_a_worker(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        worker = await core.worker()
        for size in (1, 3, 5, 100, 70_000):
            _, peer = await asyncio.get_running_loop().create_unix_connection(Peer, str(core.socket))
            peer.transport.write(secrets.token_bytes(size))
            peer.transport.write_eof()
            await until(peer.closed.done)

        assert worker.is_connected


@in_an_event_loop
async def test_a_second_process_cannot_throw_a_worker_out_by_taking_its_id(tmp_path: Path) -> None:
    async with GatewayCore(tmp_path) as core:
        first = await core.worker("one")

        second = await core.worker("one", pid=43)
        again = await core.worker("one")

        assert second.refused is not None
        assert "process 42 of a-host" in second.refused.message
        assert not second.refused.is_final
        assert again.is_connected
        await until(lambda: not first.is_connected)
        assert len(core.pools.members("vectors")) == 1
