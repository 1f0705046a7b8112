"""The parent of a differencing VHD or VHDX has moved, or another one takes its place: `rebase`."""
import os
import struct

import pytest

pytestmark = pytest.mark.any_engine

KINDS = {"vhdx": "vhdx", "vpc": "vhd"}


@pytest.fixture(params=sorted(KINDS))
def pair(request, folder, cairn):
    fmt, ending = request.param, KINDS[request.param]
    base, child = f"base.{ending}", f"child.{ending}"
    cairn("create", "-q", "-f", fmt, base, "8M")
    cairn("io", "-f", fmt, "-c", "write -P 1 0 8M", base)
    cairn("create", "-q", "-f", fmt, "-b", base, "-F", fmt, child)
    cairn("io", "-f", fmt, "-c", "write -P 2 1M 64k", child)
    return fmt, base, child


READS = ("-c", "read -P 1 0 1M", "-c", "read -P 2 1M 64k", "-c", "read -P 1 2M 6M")


def test_a_moved_parent_is_named_anew(pair, cairn):
    fmt, base, child = pair
    before = cairn("info", "--output=json", child).json().get("format-specific")
    moved = "far/away/with a rather long name of its own/" + base
    os.makedirs(os.path.dirname(moved))
    os.rename(base, moved)
    assert cairn("io", "-f", fmt, *READS, child, ok=False).code == 1
    cairn("rebase", "-u", "-b", moved, "-F", fmt, child)
    cairn("io", "-f", fmt, *READS, child)
    assert cairn("check", child).code == 0
    after = cairn("info", "--output=json", child).json().get("format-specific")
    if fmt == "vhdx":
        for key in ("parent:parent_linkage", "data-write-id", "disk-id"):
            assert before["data"][key] == after["data"][key]
    # Again, to a shorter name and by a whole path; writes go on as before.
    os.rename(moved, base)
    cairn("rebase", "-u", "-b", os.path.abspath(base), "-F", fmt, child)
    cairn("io", "-f", fmt, "-c", "write -P 3 5M 4k", *READS[:4], "-c", "read -P 3 5M 4k", child)
    assert cairn("check", child).code == 0


def test_a_parent_that_was_changed_since_is_still_refused(pair, cairn):
    fmt, base, child = pair
    other = "other" + os.path.splitext(base)[1]
    cairn("create", "-q", "-f", fmt, other, "8M")
    cairn("rebase", "-u", "-b", other, "-F", fmt, child)
    failed = cairn("io", "-f", fmt, "-c", "read 0 64k", child, ok=False)
    assert failed.code == 1 and ("modified" in failed.err or "another disk" in failed.err)
    cairn("rebase", "-u", "-b", base, "-F", fmt, child)
    cairn("io", "-f", fmt, *READS, child)


def test_a_safe_rebase_keeps_what_the_guest_sees(pair, cairn):
    fmt, base, child = pair
    other = "other" + os.path.splitext(base)[1]
    cairn("create", "-q", "-f", fmt, other, "8M")
    cairn("io", "-f", fmt, "-c", "write -P 1 0 4M", other)
    cairn("rebase", "-b", other, "-F", fmt, child)
    os.remove(base)
    cairn("io", "-f", fmt, *READS, child)
    assert cairn("check", child).code == 0


def test_what_cannot_be_is_refused_before_anything_is_written(pair, cairn):
    fmt, base, child = pair
    whole = open(base, "rb").read()
    assert (
        "not a differencing image"
        in cairn("rebase", "-u", "-b", child, "-F", fmt, base, ok=False).err
    )
    assert open(base, "rb").read() == whole
    size = os.path.getsize(child)
    assert "always has a parent" in cairn("rebase", "-b", "", child, ok=False).err
    cairn("create", "-q", "-f", "qcow2", "a.qcow2", "8M")
    assert cairn("rebase", "-b", "a.qcow2", "-F", "qcow2", child, ok=False).code == 1
    assert os.path.getsize(child) == size
    cairn("io", "-f", fmt, *READS, child)


# --- zero flags in a qcow2 image of version 2 ---


def test_zero_flags_in_version_2(folder, cairn, ours, qemu):
    for name in ("plain.qcow2", "backed.qcow2"):
        backing = ["-b", "plain.qcow2", "-F", "qcow2"] if name == "backed.qcow2" else []
        ours("create", "-q", "-f", "qcow2", "-o", "compat=0.10", *backing, name, "1M")
        cairn("io", "-f", "qcow2", "-c", f"write -P {len(name)} 0 512k", name)
        data = bytearray(open(name, "rb").read())
        table = struct.unpack_from(">Q", data, 40)[0]
        l2 = struct.unpack_from(">Q", data, table)[0] & 0x00FFFFFFFFFFFE00
        for index in (2, 9):
            entry = struct.unpack_from(">Q", data, l2 + 8 * index)[0]
            struct.pack_into(">Q", data, l2 + 8 * index, entry | 1)
        with open(name, "wb") as out:
            out.write(data)
        assert ours("check", name).code == qemu("check", name).code == 0
        found = cairn("check", name, ok=False)
        assert found.code == 2 and "2 L2 entries with the zero flag" in found.out + found.err
        assert cairn("convert", name, "out.raw", ok=False).code == 1
        assert cairn("check", "-r", "leaks", name, ok=False).code != 0
        cairn("check", "-r", "all", name)
        assert cairn("check", name).code == 0 and qemu("check", name).code == 0
        wanted = [len(name), len(name), 0] + [len(name)] * 5
        reads = [
            word
            for i, byte in enumerate(wanted)
            for word in ("-c", f"read -P {byte} {i * 64}k 64k")
        ]
        cairn("io", "-f", "qcow2", *reads, "-c", "read -P 0 576k 64k", name)
        cairn("convert", "--overwrite", name, "out.raw")
