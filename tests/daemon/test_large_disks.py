"""Jobs of disks that are large and nearly empty: what is empty takes neither time nor space."""
import pytest

from conftest import CAIRN
from job_disks import run
from qmp import Daemon

DAEMON = CAIRN.parent / "compat" / "qemu-storage-daemon"
MIB = 1 << 20


def carry(folder, job, **target):
    """Runs a job from source.qcow2 to target.qcow2, which is opened with TARGET too."""
    with Daemon(DAEMON) as daemon:
        client = daemon.client()
        for name, more in (("source", {}), ("target", target)):
            file = {"driver": "file", "filename": str(folder / f"{name}.qcow2")}
            client.command("blockdev-add", driver="qcow2", node__name=name, file=file, **more)
        client.command(job, job__id="j", device="source", target="target", sync="full")
        if job == "blockdev-mirror":
            client.event("BLOCK_JOB_READY")
            client.command("job-complete", id="j")
        assert "error" not in client.event("BLOCK_JOB_COMPLETED")
        assert daemon.stop() == (0, "")


def image(name, size, *writes, backing=None):
    below = ["-b", f"{backing}.qcow2", "-F", "qcow2"] if backing else []
    run("qemu-img", "create", "-q", "-f", "qcow2", *below, f"{name}.qcow2", size)
    if writes:
        run("qemu-io", *[word for write in writes for word in ("-c", write)], f"{name}.qcow2")


@pytest.mark.parametrize("job", ["blockdev-mirror", "blockdev-backup"])
def test_what_is_empty_takes_no_space(folder, job):
    image("source", "8T", "write -P 1 1T 1M", "write -P 2 7T 64k")
    image("target", "8T")
    carry(folder, job)
    run("qemu-img", "compare", "-q", "source.qcow2", "target.qcow2")
    assert (folder / "target.qcow2").stat().st_size < 8 * MIB


@pytest.mark.parametrize("job", ["blockdev-mirror", "blockdev-backup"])
def test_what_the_target_had_is_gone(folder, job):
    image("source", "1G", "write -P 1 64M 1M", "write -z 100M 1M")
    image("target", "1G", "write -P 9 63M 3M", "write -P 9 100M 128k", "write -P 9 1000k 8k")
    carry(folder, job)
    run("qemu-img", "compare", "-q", "source.qcow2", "target.qcow2")


def test_zeroes_of_a_backing_file_may_change(folder):
    """A backup over its own source: what is zero now is kept, also where it is written later."""
    image("source", "64M", "write -P 1 1M 1M")
    image("target", "64M", backing="source")
    carry(folder, "blockdev-backup", backing="source")
    run("qemu-io", "-c", "write -P 7 32M 1M", "source.qcow2")
    run("qemu-io", "-c", "read -P 0 32M 1M", "-c", "read -P 1 1M 1M", "target.qcow2")
