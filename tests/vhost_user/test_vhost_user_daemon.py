"""block-export-add of the type vhost-user-blk, compared with qemu-storage-daemon and used by a front end."""
import os
import shutil
import socket
import struct

import pytest

from conftest import CAIRN
from qmp import Daemon
from vhost_front_end import GET_FEATURES, OK, SET_BACKEND_REQ_FD, FrontEnd, wait_for

OURS = CAIRN.parent / "compat" / "qemu-storage-daemon"
SIZE = 1 << 20


@pytest.fixture
def disk(folder):
    (folder / "d.raw").write_bytes(b"d" * SIZE)
    words = ["--blockdev", "file,filename=d.raw,node-name=n,discard=unmap"]
    with Daemon(OURS, *words, directory=folder) as daemon:
        yield daemon


def export(client, path="vm.sock", **more):
    more = {"writable": True, "num__queues": 2, **more}
    return client.command(
        "block-export-add",
        type="vhost-user-blk",
        id="e",
        node__name="n",
        addr={"type": "unix", "path": path},
        **more,
    )


def test_a_front_end_reads_writes_and_is_cut_off(disk, folder):
    client = disk.client()
    assert export(client) == {}
    assert client.command("query-block-exports") == [
        {"node-name": "n", "shutting-down": False, "type": "vhost-user-blk", "id": "e"}
    ]
    front = FrontEnd(folder / "vm.sock")
    queue = front.queue(1)
    assert queue.read(0, 512) == (OK, b"d" * 512)
    assert queue.write(5, b"w" * 1024) == OK and queue.flush() == OK
    # One that is connected does not keep it from being removed.
    assert client.command("block-export-del", id="e") == {}
    client.event("BLOCK_EXPORT_DELETED")
    assert front.is_cut() and not (folder / "vm.sock").exists()
    front.leave()
    assert export(client, writable=False) == {}
    front = FrontEnd(folder / "vm.sock")
    assert front.features & 32
    assert front.queue().read(5, 1024) == (OK, b"w" * 1024)
    front.leave()
    assert disk.stop() == (0, "")
    assert not (folder / "vm.sock").exists()


def test_a_new_size_is_announced(disk, folder):
    client = disk.client()
    export(client)
    front = FrontEnd(folder / "vm.sock")
    ours, theirs = socket.socketpair()
    front.order(SET_BACKEND_REQ_FD, b"", [theirs.fileno()])
    theirs.close()
    assert front.number(GET_FEATURES)
    client.command("block_resize", node__name="n", size=2 * SIZE)
    ours.settimeout(30)
    assert struct.unpack("<III", ours.recv(12)) == (2, 1, 0)
    assert struct.unpack_from("<Q", front.config())[0] == 2 * SIZE // 512
    queue = front.queue()
    assert queue.write(2 * SIZE // 512 - 1, b"e" * 512) == OK
    front.leave()
    # Without anybody connected, where the reference crashes.
    wait_for(lambda: client.command("block_resize", node__name="n", size=SIZE) == {}, "resize")
    assert os.path.getsize("d.raw") == SIZE


@pytest.mark.parametrize(
    "more",
    [
        {"addr": {"type": "inet", "host": "127.0.0.1", "port": "1"}},
        {"addr": {"type": "vsock", "cid": "1", "port": "1"}},
        {"addr": {"type": "fd", "str": "name"}},
        {"addr": {"type": "unix", "path": "missing/x"}},
        {"logical__block__size": 1000},
        {"logical__block__size": 1 << 22},
        {"num__queues": 0},
        {"num__queues": 65536},
        {"allow__inactive": True},
        {},
    ],
    ids=range(10),
)
def test_refusals_are_those_of_the_reference(folder, more):
    reference = shutil.which("qemu-storage-daemon")
    assert reference
    said = []
    for program in (OURS, reference):
        words = ["--blockdev", "null-co,node-name=n,read-only=on"]
        with Daemon(program, *words, directory=folder) as daemon:
            arguments = {
                "type": "vhost-user-blk",
                "id": "e",
                "node__name": "n",
                "addr": {"type": "unix", "path": "vm.sock"},
                "writable": not more,
                **more,
            }
            if more:
                arguments["writable"] = False
            said.append(daemon.client().error("block-export-add", **arguments))
    assert said[0] == said[1]
