"""Clients that hold memory or places without using them do not keep others from being served."""
import os
import struct
import time

import pytest

from conftest import CAIRN
from nbd_support import READ, REQUEST, Server, WRITE

pytestmark = pytest.mark.any_engine

SIZE = 64 << 20
LONGEST = 32 << 20


def serve(folder, *words):
    with open(folder / "d.raw", "wb") as out:
        out.write(os.urandom(1 << 20) * (SIZE >> 20))
    return Server(
        [CAIRN, "serve", "-q", "-f", "raw", "-k", folder / "s.sock", *words, folder / "d.raw"],
        folder / "s.sock",
    )


def begin_only(server, count):
    """Connections that say nothing; the kernel takes so many at a time."""
    made = []
    while len(made) < count:
        try:
            made.append(server.connect())
        except BlockingIOError:
            time.sleep(0.01)
    return made


def request(command, offset, length):
    return struct.pack(">IHHQQI", REQUEST, 0, command, 1, offset, length)


@pytest.mark.parametrize("command", [READ, WRITE])
def test_clients_that_stop_in_the_middle_share_one_bound(folder, command):
    server = serve(folder, "-e", "0", "--memory", "96M")
    try:
        before = server.memory_kib()
        greedy = []
        for _ in range(60):
            client = server.client().start()
            for n in range(2):
                client.send(request(command, n * LONGEST, LONGEST))
                if command == WRITE:
                    client.send(bytes(1024))
                    break
            greedy.append(client)
        time.sleep(1)
        held = server.memory_kib("VmHWM") - before
        # Read buffers and the rest of a connection come on top of the payload.
        assert held < (96 << 10) + 60 * 200 + (32 << 10), held
        honest = server.client().start()
        honest.sock.settimeout(60)
        assert honest.works()
        assert server.memory_kib("VmHWM") - before < (96 << 10) + 60 * 200 + (32 << 10)
        for client in greedy:
            client.close()
    finally:
        server.end()


def test_half_open_connections_do_not_keep_a_client_out(folder):
    server = serve(folder)
    try:
        mute = begin_only(server, 260)
        begin = time.monotonic()
        client = server.client().start()
        assert client.works()
        assert time.monotonic() - begin < 5
        # Those who began to work stay.
        more = begin_only(server, 260)
        assert client.works()
        for one in mute + more:
            one.close()
    finally:
        server.end()


def test_the_bound_has_a_least(folder, cairn):
    with open("a.raw", "wb") as out:
        out.truncate(1 << 20)
    told = cairn("serve", "--memory", "1M", "-k", "s.sock", "a.raw", ok=False)
    assert told.code == 1 and "memory" in told.err
