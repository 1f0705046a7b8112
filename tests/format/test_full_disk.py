"""Images on storage of a fixed length: when it is full, the error is that of a full disk, in QEMU's words, and the image stays consistent."""
import json

import pytest

from conftest import CAIRN, call

FORMATS = ["qcow2", "qcow", "qed", "vdi", "vmdk", "vpc", "vhdx", "parallels"]
CHECKED = {"qcow2", "qed", "vdi", "vmdk", "vhdx", "parallels"}
ROOM, DISK = 12 << 20, "64M"
FULL = "No space left on device"
TOOLS = CAIRN.parent / "compat"


def fill(name, *more):
    """Writes more than there is room for; the first part of it fits, where new clusters follow the old ones."""
    done = call(TOOLS / "qemu-io", *more, "-c", "write -P 3 0 32M", name, ok=False)
    assert done.code == 1 and f"write failed: {FULL}" in done.out + done.err, (done.out, done.err)


def in_window(fmt, path):
    raw = {"driver": "raw", "size": ROOM, "file": {"driver": "file", "filename": str(path)}}
    return "json:" + json.dumps({"driver": fmt, "file": raw})


@pytest.mark.parametrize("fmt", FORMATS)
def test_device(folder, cairn, loop, fmt):
    with open("store", "wb") as out:
        out.truncate(ROOM)
    device = loop("store")
    cairn("create", "-f", fmt, device, DISK)
    fill(device, "-f", fmt)
    if fmt in CHECKED:
        assert call(CAIRN, "check", "-f", fmt, device, ok=False).code in (0, 3)


@pytest.mark.parametrize("fmt", FORMATS)
def test_window(folder, cairn, fmt):
    cairn("create", "-f", fmt, "store", DISK)
    with open("store", "r+b") as out:
        out.truncate(ROOM)
    fill(in_window(fmt, folder / "store"))
    assert (folder / "store").stat().st_size == ROOM


def test_convert(folder, cairn, ours, loop):
    """The error names the byte of the disk, and how much is missing under our own name."""
    with open("store", "wb") as out:
        out.truncate(1 << 20)
    with open("disk", "wb") as out:
        out.write(b"\1" * (4 << 20))
    device = loop("store")
    for tool in cairn, ours:
        failed = tool("convert", "-f", "raw", "-O", "qcow2", "disk", device, ok=False)
        assert failed.code == 1 and "error while writing at byte" in failed.err
        assert failed.err.splitlines()[0].endswith(FULL)


@pytest.mark.parametrize("mode", ["metadata", "falloc", "full"])
def test_preallocation(folder, cairn, loop, mode):
    with open("store", "wb") as out:
        out.truncate(1 << 20)
    device, option = loop("store"), f"preallocation={mode}"
    failed = cairn("create", "-f", "qcow2", "-o", option, device, DISK, ok=False)
    assert failed.code == 1 and (FULL in failed.err or "annot grow" in failed.err), failed.err
    # The image never was.
    assert "not closed" not in failed.err


def test_too_small(folder, cairn, ours, qemu, loop):
    """A disk that is larger than the device: what it has, and what it would take."""
    with open("store", "wb") as out:
        out.truncate(1 << 20)
    device = loop("store")
    failed = cairn("create", "-f", "raw", device, "4M", ok=False)
    assert "Cannot grow device files" in failed.err
    assert "The image needs 4194304 bytes at least, and its storage has 1048576." in failed.err
    both = [tool("create", "-f", "raw", device, "4M", ok=False) for tool in (ours, qemu)]
    assert both[0].err == both[1].err and both[0].code == both[1].code == 1


def test_past_the_end_of_a_disk(folder, cairn):
    """What a person writes past the end of a disk is no matter of room."""
    cairn("create", "-f", "raw", "disk", "1M")
    for name in "disk", in_window("raw", "disk").replace(str(ROOM), str(1 << 20)):
        more = ["-f", "raw"] if name == "disk" else []
        failed = call(TOOLS / "qemu-io", *more, "-c", "write 1M 512", name, ok=False)
        assert failed.code == 1 and FULL not in failed.out + failed.err


def test_filters(folder, cairn):
    """A filter alone is a disk; below a format it is the format's storage."""
    raw = {"driver": "raw", "size": 1 << 20, "file": {"driver": "file", "filename": "store"}}
    filtered = {"driver": "blkdebug", "image": raw}
    cairn("create", "-f", "qcow2", "store", DISK)
    with open("store", "r+b") as out:
        out.truncate(1 << 20)
    fill("json:" + json.dumps({"driver": "qcow2", "file": filtered}))
    for tool in TOOLS / "qemu-io", "qemu-io":
        failed = call(tool, "-c", "write 1M 512", "json:" + json.dumps(filtered), ok=False)
        assert failed.out == "write failed: Input/output error\n"
