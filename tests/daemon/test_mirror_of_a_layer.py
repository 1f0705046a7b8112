"""Mirrors of the upper layer of a chain, into an image that gets the lower ones in the end."""
import subprocess

import pytest
from conftest import CAIRN, call
from qmp import Daemon

DAEMON = CAIRN.parent / "compat" / "qemu-storage-daemon"
KIB = 1024
SIZE = 4 * KIB * KIB


def image(directory, name, *words):
    call("qemu-img", "create", "-q", "-f", "qcow2", *words, directory / name, str(SIZE))
    return directory / name


def write(image, *commands):
    """The same in the image and in a raw file of what it has to show."""
    for command in commands:
        call("qemu-io", "-f", "qcow2", "-c", command, image)
        call("qemu-io", "-f", "raw", "-c", command, image.parent / "wanted")


@pytest.mark.parametrize("end", ["job-complete", "block-job-cancel"])
@pytest.mark.parametrize("mode", ["background", "write-blocking"])
@pytest.mark.parametrize("cluster", ["64k", "1M"])
def test_what_is_below_stays_in_sight(cluster, mode, end, tmp_path):
    """Around small writes, in clusters that are larger than those of the source. The reference loses it."""
    (tmp_path / "wanted").write_bytes(bytes(SIZE))
    base = image(tmp_path, "base")
    write(base, "write -P 1 0 4M")
    top = image(tmp_path, "top", "-b", "base", "-F", "qcow2")
    write(top, "write -P 2 68k 4k", "write -z 1M 64k", "write -P 3 2M 64k")
    words = ["-o", f"cluster_size={cluster}", "-b", "base", "-F", "qcow2"]
    target = image(tmp_path, "target", *words)
    with Daemon(DAEMON, directory=tmp_path) as daemon:
        qmp = daemon.client()

        def add(name, **more):
            file = {"driver": "file", "filename": str(tmp_path / name)}
            qmp.command("blockdev-add", driver="qcow2", node__name=name, file=file, **more)

        add("base", read__only=True)
        add("top", backing="base")
        add("target", backing=None)
        path = f"{tmp_path}/nbd.sock"
        qmp.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
        qmp.command("block-export-add", type="nbd", id="e", node__name="top", writable=True)
        arguments = {"device": "top", "target": "target", "sync": "top", "copy__mode": mode}
        qmp.command("blockdev-mirror", job__id="m", **arguments)
        qmp.event("BLOCK_JOB_READY")
        changes = ["write -P 4 3080k 4k", "write -z 2500k 4k", "discard 3500k 4k"]
        if end != "job-complete":
            changes.pop()
        url = f"nbd+unix:///top?socket={path}"
        for command in changes:
            call("qemu-io", "-f", "raw", "-c", command, url)
            if command.startswith("write"):
                call("qemu-io", "-f", "raw", "-c", command, tmp_path / "wanted")
        qmp.command(end, **{"id" if end == "job-complete" else "device": "m"})
        assert "error" not in qmp.event("BLOCK_JOB_COMPLETED")
        qmp.close()
    done = subprocess.run(
        ["qemu-img", "compare", "-F", "raw", target, tmp_path / "wanted"], capture_output=True
    )
    assert done.returncode == 0, done.stdout
