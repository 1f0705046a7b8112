"""Bitmaps after a daemon was killed: inconsistent, never wrong."""
import json
import signal
import subprocess

import pytest
from conftest import CAIRN, wait_until_free
from qmp import Daemon

OURS = CAIRN.parent / "compat" / "qemu-storage-daemon"
TOP = {
    "driver": "qcow2",
    "node-name": "top",
    "file": {"driver": "file", "filename": "top.img"},
}
ADD = {"node": "top", "name": "b", "persistent": True}


def shown(client):
    nodes = client.command("query-named-block-nodes", flat=True)
    bitmaps = next(one for one in nodes if one["node-name"] == "top")["dirty-bitmaps"]
    return [(one["name"], one["recording"], one.get("inconsistent", False)) for one in bitmaps]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_bitmaps_of_a_daemon_that_ended(how, tmp_path):
    image = tmp_path / "top.img"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "4M"], check=True)
    killed = how == signal.SIGKILL
    # The bitmap is stored once, so that the image has it when the daemon is killed.
    for number, end in enumerate((signal.SIGTERM, how)):
        with Daemon(OURS, directory=tmp_path) as daemon:
            client = daemon.client()
            client.command("blockdev-add", **TOP)
            if number == 0:
                client.command("block-dirty-bitmap-add", **ADD)
            address = {"type": "unix", "data": {"path": "nbd.sock"}}
            client.command("nbd-server-start", addr=address)
            client.command("block-export-add", type="nbd", id="e", node__name="top", writable=True)
            url = f"nbd+unix:///top?socket={tmp_path}/nbd.sock"
            write = ["qemu-io", "-f", "raw", "-c", "write 1M 64k", "-c", "flush", url]
            subprocess.run(write, check=True, capture_output=True)
            client.close()
            daemon.stop(end)
        wait_until_free(image)
        (tmp_path / "nbd.sock").unlink(missing_ok=True)
    with Daemon(OURS, directory=tmp_path) as daemon:
        client = daemon.client()
        client.command("blockdev-add", **TOP)
        assert shown(client) == [("b", not killed, killed)]
        if killed:
            text = "Bitmap 'b' is inconsistent and cannot be used"
            for verb in ("clear", "disable", "enable"):
                refused = client.error(f"block-dirty-bitmap-{verb}", node="top", name="b")
                assert text in refused[1]
            client.command("block-dirty-bitmap-remove", node="top", name="b")
            client.command("block-dirty-bitmap-add", **ADD)
        client.close()
    described = subprocess.run(
        ["qemu-img", "info", "--output=json", image], check=True, capture_output=True
    )
    bitmaps = json.loads(described.stdout)["format-specific"]["data"]["bitmaps"]
    assert [(one["name"], one["flags"]) for one in bitmaps] == [("b", ["auto"])]
