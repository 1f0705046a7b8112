"""What nodes know of the requests that they had, next to qemu-storage-daemon."""
import subprocess

import pytest
from conftest import CAIRN
from qmp import Daemon

OURS = CAIRN.parent / "compat" / "qemu-storage-daemon"
MIB = 1 << 20


def highest(program, directory, *commands):
    """The highest end of what was written, by node, after COMMANDS through an export."""
    directory.mkdir()
    for name in ("disk", "image"):
        fmt = "qcow2" if name == "image" else "raw"
        words = ["qemu-img", "create", "-q", "-f", fmt, directory / name, "8M"]
        subprocess.run(words, check=True)
    with Daemon(program, directory=directory) as daemon:
        client = daemon.client()
        address = {"type": "unix", "data": {"path": "nbd.sock"}}
        client.command("nbd-server-start", addr=address)
        for name, driver in (("disk", "raw"), ("image", "qcow2")):
            file = {"driver": "file", "filename": name, "node-name": f"{name}-file"}
            if name == "image":
                file["discard"] = "unmap"
            client.command("blockdev-add", driver=driver, node__name=name, file=file)
            client.command("block-export-add", type="nbd", id=name, node__name=name, writable=True)
            words = [word for command in commands for word in ("-c", command)]
            url = f"nbd+unix:///{name}?socket={directory}/nbd.sock"
            subprocess.run(["qemu-io", "-f", "raw", *words, url], check=True, capture_output=True)
        found = {
            one["node-name"]: one["stats"]["wr_highest_offset"]
            for one in client.command("query-blockstats", query__nodes=True)
        }
        client.close()
    # Where the format puts clusters in its file is its own affair.
    del found["image-file"]
    return found


@pytest.mark.parametrize(
    "commands, end",
    [
        (["read 0 8M", "flush"], 0),
        (["write 1M 64k", "write 512k 4k", "read 4M 1M"], MIB + 65536),
        (["write 1M 64k", "write -z 2M 64k"], 2 * MIB + 65536),
        (["write 1M 64k", "discard 3M 64k"], MIB + 65536),
    ],
    ids=["none", "writes", "zeroes", "discard"],
)
def test_the_highest_end_of_a_write(commands, end, tmp_path):
    ours = highest(OURS, tmp_path / "ours", *commands)
    assert ours == highest("qemu-storage-daemon", tmp_path / "theirs", *commands)
    assert ours == {"disk": end, "disk-file": end, "image": end}
