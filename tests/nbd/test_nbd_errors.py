"""Errors of a disk as clients of the NBD server get them, next to qemu-nbd."""
import errno

import nbd
import pytest
from conftest import CAIRN
from qmp import Daemon

PROGRAMS = [CAIRN.parent / "compat" / "qemu-storage-daemon", "qemu-storage-daemon"]
NUMBERS = [errno.EPERM, errno.EIO, errno.ENOMEM, errno.EINVAL, errno.ENOSPC, errno.EBUSY]


def answers(program, number, structured):
    """The errors that a client gets when a write, and a read, meets NUMBER."""
    with Daemon(program) as daemon:
        client = daemon.client()
        rules = [{"event": "none", "iotype": kind, "errno": number} for kind in ("read", "write")]
        disk = {"driver": "null-co", "size": 1 << 20, "read-zeroes": False}
        faulty = {"driver": "blkdebug", "node__name": "n", "image": disk, "inject__error": rules}
        client.command("blockdev-add", **faulty)
        path = str(daemon.directory / "nbd.sock")
        client.command("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
        client.command("block-export-add", type="nbd", id="e", node__name="n", writable=True)
        said = []
        handle = nbd.NBD()
        handle.set_export_name("n")
        handle.set_request_structured_replies(structured)
        handle.connect_unix(path)
        for request in (lambda: handle.pwrite(bytes(512), 0), lambda: handle.pread(512, 0)):
            with pytest.raises(nbd.Error) as caught:
                request()
            said.append(caught.value.errno)
            # In the middle of a structured reply qemu-storage-daemon ends the connection instead.
            if structured:
                break
        del handle
        client.close()
        return said


@pytest.mark.parametrize("structured", [True, False], ids=["structured", "simple"])
@pytest.mark.parametrize("number", [*NUMBERS, errno.ENOTSUP], ids=errno.errorcode.get)
def test_numbers_on_the_wire(number, structured):
    ours, theirs = (answers(program, number, structured) for program in PROGRAMS)
    assert ours == theirs
    if number == errno.ENOTSUP:
        assert ours[0] == "ENOTSUP"
