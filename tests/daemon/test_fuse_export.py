"""Disks that the daemon mounts: each call of a program gives what it gives on a mount of the reference."""
import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import struct
import subprocess

import pytest
from conftest import CAIRN
from qmp import Daemon, wait_for

pytestmark = pytest.mark.any_engine
PROGRAMS = [CAIRN.parent / "compat" / "qemu-storage-daemon", "qemu-storage-daemon"]
KIB = 1024
SIZE = 1 << 20
KEEP, PUNCH, COLLAPSE, ZERO = 1, 2, 8, 16
LIBC = ctypes.CDLL(None, use_errno=True)


def fallocate(file, mode, offset, length):
    where = (ctypes.c_int64(offset), ctypes.c_int64(length))
    if LIBC.fallocate(file, mode, *where) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def lock(file, wanted):
    """A lock of the open file description."""
    fcntl.fcntl(file, 37, struct.pack("hhqqi4x", wanted, os.SEEK_SET, 0, 0, 0))


def said(work, *arguments):
    """What WORK gives, or the name of its error."""
    try:
        return work(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]


class Mount:
    """A disk of 1 MiB, of which 256 KiB are data, mounted by a daemon."""

    def __init__(self, daemon, **export):
        self.client = daemon.client()
        self.disk = daemon.directory / "disk"
        self.disk.write_bytes(bytes(range(256)) * KIB + bytes(SIZE - 256 * KIB))
        with open(self.disk, "r+b") as file:
            fallocate(file.fileno(), PUNCH | KEEP, 256 * KIB, SIZE - 256 * KIB)
        self.point = daemon.directory / "point"
        self.point.touch()
        self.client.command("blockdev-add", driver="file", node__name="d", filename=str(self.disk))
        self.client.command(
            "block-export-add",
            type="fuse",
            id="f",
            node__name="d",
            mountpoint=str(self.point),
            **export,
        )

    def size(self):
        return self.point.stat().st_size

    def close(self):
        if self.client.command("query-block-exports"):
            self.client.command("block-export-del", id="f")
            wait_for(lambda: self.client.command("query-block-exports") == [])
        self.client.close()


def reads_and_writes(mount):
    """Unaligned, across the end of the disk and past it."""
    file = os.open(mount.point, os.O_RDWR)
    yield "read unaligned", said(os.pread, file, 10, 5)
    yield "read across the end", said(os.pread, file, 10, SIZE - 3)
    yield "read past the end", said(os.pread, file, 10, SIZE)
    yield "read far past the end", said(os.pread, file, 10, SIZE + 100)
    yield "write", said(os.pwrite, file, b"abc", 5)
    yield "read what was written", said(os.pread, file, 5, 4)
    yield "write across the end", said(os.pwrite, file, b"x" * 10, SIZE - 3)
    yield "size", mount.size()
    yield "write past the end", said(os.pwrite, file, b"x" * 10, SIZE + 4096)
    yield "size", mount.size()
    yield "sync", (said(os.fsync, file), said(os.fdatasync, file))
    os.close(file)


def sizes(mount):
    file = os.open(mount.point, os.O_RDWR)
    for wanted in (SIZE * 2, SIZE // 2, SIZE - 100):
        yield f"truncate to {wanted}", said(os.ftruncate, file, wanted)
        yield "size", mount.size()
    os.close(file)
    os.close(os.open(mount.point, os.O_RDWR | os.O_TRUNC))
    yield "size", mount.size()


def allocation(mount):
    file = os.open(mount.point, os.O_RDWR)
    for mode in (0, KEEP, COLLAPSE, PUNCH, PUNCH | KEEP, ZERO, ZERO | KEEP):
        for place, offset in (("inside", 64 * KIB + 3), ("at the end", SIZE), ("past", SIZE * 2)):
            yield f"mode {mode} {place}", said(fallocate, file, mode, offset, 64 * KIB)
            yield "size", mount.size()
    yield "read a hole", said(os.pread, file, 4, 64 * KIB + 1)
    yield "read after a hole", said(os.pread, file, 4, 128 * KIB + 1)
    os.close(file)


def extents(mount):
    file = os.open(mount.point, os.O_RDWR)
    for name, whence in (("data", os.SEEK_DATA), ("hole", os.SEEK_HOLE)):
        for offset in (0, 100, 256 * KIB, 300 * KIB, SIZE - 1, SIZE, SIZE + 1):
            yield f"seek {name} from {offset}", said(os.lseek, file, offset, whence)
    os.close(file)


def attributes(mount):
    found = mount.point.stat()
    yield "mode", oct(found.st_mode)
    yield "links, number, size", (found.st_nlink, found.st_ino, found.st_size)
    yield "owner", found.st_uid == os.getuid()
    yield "block", found.st_blksize
    for mode in (0o400, 0o644, 0o600):
        yield f"chmod {mode:o}", said(os.chmod, mount.point, mode)
        yield "mode", oct(mount.point.stat().st_mode)
    yield "chown", said(os.chown, mount.point, 65534, 65534)
    yield "owner", mount.point.stat().st_uid
    yield "times", said(os.utime, mount.point, (1, 1))
    yield "set an attribute", said(os.setxattr, mount.point, "user.a", b"b")
    yield "get an attribute", said(os.getxattr, mount.point, "user.a")


def names(mount):
    yield "remove", said(os.unlink, mount.point)
    yield "rename", said(os.rename, mount.point, f"{mount.point}2")
    yield "create", said(os.open, mount.point, os.O_CREAT | os.O_EXCL | os.O_RDWR)


def other_ways(mount):
    """Direct and appending writes, locks, mapped memory, and copies by the kernel."""
    direct = os.open(mount.point, os.O_RDWR | os.O_DIRECT)
    page = mmap.mmap(-1, 4096)
    page.write(b"p" * 4096)
    yield "direct", (said(os.pwritev, direct, [page], 8192), said(os.preadv, direct, [page], 8192))
    os.close(direct)
    file = os.open(mount.point, os.O_RDWR)
    other = os.open(mount.point, os.O_RDWR)
    yield "lock", (said(lock, file, fcntl.F_WRLCK), said(lock, other, fcntl.F_WRLCK))
    yield "unlock", (said(lock, file, fcntl.F_UNLCK), said(lock, other, fcntl.F_WRLCK))
    yield "flock", [said(fcntl.flock, one, fcntl.LOCK_EX | fcntl.LOCK_NB) for one in (file, other)]
    with contextlib.closing(mmap.mmap(file, 64 * KIB)) as memory:
        memory[100:103] = b"mmm"
        memory.flush()
    yield "read what was mapped", said(os.pread, other, 5, 99)
    yield "copy", said(os.copy_file_range, file, other, 4096, 0, 512 * KIB)
    yield "read the copy", said(os.pread, other, 5, 512 * KIB + 99)
    os.close(file)
    os.close(other)
    added = os.open(mount.point, os.O_WRONLY | os.O_APPEND)
    yield "append", said(os.write, added, b"end")
    yield "size", mount.size()
    os.close(added)


def only_reads(mount):
    yield "mode", oct(mount.point.stat().st_mode)
    file = os.open(mount.point, os.O_RDONLY)
    yield "read", said(os.pread, file, 4, 0)
    os.close(file)
    yield "truncate", said(os.truncate, mount.point, 0) in REFUSALS
    yield "write", said(write_a_byte, mount.point) in REFUSALS
    yield "chmod 600", said(os.chmod, mount.point, 0o600) in (*REFUSALS, "EOPNOTSUPP")
    yield "mode", oct(mount.point.stat().st_mode)


# A file system says that it is read-only by one of these.
REFUSALS = ("EROFS", "EACCES", "EPERM")


def write_a_byte(path):
    with open(path, "r+b", buffering=0) as file:
        file.write(b"w")


def another_user(mount):
    """Who has no rights."""
    mount.point.parent.chmod(0o755)
    words = ["setpriv", "--reuid=65534", "--clear-groups", "head", "-c", "1", mount.point]
    yield "read", subprocess.run(words, capture_output=True).returncode


def the_end(mount):
    """The export goes though the file is open."""
    file = os.open(mount.point, os.O_RDWR)
    mount.client.command("block-export-del", id="f")
    mount.client.event("BLOCK_EXPORT_DELETED")
    yield "read", said(os.pread, file, 1, 0)
    yield "size", mount.point.stat().st_size
    with contextlib.suppress(OSError):
        os.close(file)


def unmounted(mount):
    """By somebody else: it is an export until it is deleted."""
    subprocess.run(["umount", mount.point], check=True)
    yield "exports", [one["id"] for one in mount.client.command("query-block-exports")]


# What ours gives where the reference gives something else, as docs/daemon.md says.
OURS = {
    "write past the end": "ENOSPC",
    "mode 0 inside": None,
    "mode 1 inside": None,
    "mode 1 at the end": None,
    "mode 1 past": None,
    "seek hole from 1048576": "ENXIO",
    "block": 65536,
    "times": None,
    "get an attribute": "ENODATA",
}
WRITABLE = {"writable": True}
GROWABLE = {"writable": True, "growable": True}
CASES = [
    (reads_and_writes, WRITABLE),
    (reads_and_writes, GROWABLE),
    (sizes, WRITABLE),
    (sizes, GROWABLE),
    (allocation, WRITABLE),
    (allocation, GROWABLE),
    (extents, WRITABLE),
    (attributes, WRITABLE),
    (attributes, {**WRITABLE, "allow_other": "off"}),
    (names, WRITABLE),
    (other_ways, GROWABLE),
    (only_reads, {}),
    (only_reads, {"allow_other": "off"}),
    (another_user, {**WRITABLE, "allow_other": "off"}),
    (another_user, {**WRITABLE, "allow_other": "on"}),
    (the_end, WRITABLE),
    (unmounted, WRITABLE),
]


@pytest.mark.parametrize(
    "calls, export",
    CASES,
    ids=[f"{calls.__name__}-{'-'.join(map(str, export.values()))}" for calls, export in CASES],
)
def test_as_the_reference(calls, export):
    results = []
    for program in PROGRAMS:
        with Daemon(program) as daemon:
            arguments = {name.replace("_", "__"): value for name, value in export.items()}
            mount = Mount(daemon, **arguments)
            try:
                results.append(list(calls(mount)))
            finally:
                mount.close()
            content = mount.disk.read_bytes()
            # The reference keeps whole sectors of files.
            results[-1].append(("content", content + bytes(-len(content) % 512)))
    for (label, ours), (_, theirs) in zip(*results):
        if label == "size":
            ours += -ours % 512
        assert ours == theirs or OURS.get(label, theirs) == ours, label
