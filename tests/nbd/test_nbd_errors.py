"""Errors of a disk as clients of the NBD server get them, next to qemu-nbd."""
import contextlib
import errno

import nbd
import pytest
from conftest import CAIRN
from qmp import Daemon

PROGRAMS = [CAIRN.parent / "compat" / "qemu-storage-daemon", "qemu-storage-daemon"]
NUMBERS = [errno.EPERM, errno.EIO, errno.ENOMEM, errno.EINVAL, errno.ENOSPC, errno.EBUSY]


@contextlib.contextmanager
def faulty_disk(program, number, structured, *kinds):
    """A client of a disk of which requests of these KINDS fail with NUMBER."""
    with Daemon(program) as daemon:
        client = daemon.client()
        rules = [{"event": "none", "iotype": kind, "errno": number} for kind in kinds]
        disk = {"driver": "null-co", "size": 1 << 20, "read-zeroes": False}
        faulty = {"driver": "blkdebug", "node__name": "n", "image": disk, "inject__error": rules}
        client.command("blockdev-add", **faulty, discard="unmap")
        path = str(daemon.directory / "nbd.sock")
        client.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
        client.command("block-export-add", type="nbd", id="e", node__name="n", writable=True)
        handle = nbd.NBD()
        handle.set_export_name("n")
        handle.set_request_structured_replies(structured)
        handle.connect_unix(path)
        yield handle
        del handle
        client.close()


def answers(program, number, structured):
    """The errors that a client gets when a write, and a read, meets NUMBER."""
    said = []
    with faulty_disk(program, number, structured, "read", "write") as handle:
        for request in (lambda: handle.pwrite(bytes(512), 0), lambda: handle.pread(512, 0)):
            with pytest.raises(nbd.Error) as caught:
                request()
            said.append(caught.value.errno)
            # In the middle of a structured reply qemu-storage-daemon ends the connection instead.
            if structured:
                break
    return said


@pytest.mark.parametrize("structured", [True, False], ids=["structured", "simple"])
@pytest.mark.parametrize("number", [*NUMBERS, errno.ENOTSUP], ids=errno.errorcode.get)
def test_numbers_on_the_wire(number, structured):
    ours, theirs = (answers(program, number, structured) for program in PROGRAMS)
    assert ours == theirs
    if number == errno.ENOTSUP:
        assert ours[0] == "ENOTSUP"


@pytest.mark.parametrize("program", PROGRAMS, ids=["ours", "theirs"])
def test_a_disk_that_cannot_discard_has_done_enough(program):
    with faulty_disk(program, errno.ENOTSUP, True, "discard") as handle:
        handle.trim(65536, 0)
    with faulty_disk(program, errno.EIO, True, "discard") as handle:
        with pytest.raises(nbd.Error) as caught:
            handle.trim(65536, 0)
        assert caught.value.errno == "EIO"
