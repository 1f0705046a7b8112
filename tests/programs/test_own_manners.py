"""What our own name has beyond QEMU's verbs: key files, `umount`, `bitmap --list`, warnings."""
import os

import pytest

from conftest import CAIRN
from nbd_support import Server, free_port


def test_bitmap_list(folder, cairn, ours):
    cairn("create", "-q", "a.qcow2", "4M")
    assert cairn("bitmap", "--list", "a.qcow2").out == ""
    assert cairn("bitmap", "--list", "--output", "json", "a.qcow2").json() == {"version": 1, "bitmaps": []}
    cairn("bitmap", "--add", "-g", "64k", "a.qcow2", "monday")
    cairn("io", "-c", "write 0 100k", "a.qcow2")
    cairn("bitmap", "--add", "--disable", "-g", "32k", "a.qcow2", "tuesday\x1b[2J")
    before = (folder / "a.qcow2").read_bytes()
    listed = cairn("bitmap", "--list", "--output=json", "a.qcow2").json()
    assert listed == {"version": 1, "bitmaps": [
        {"name": "monday", "granularity": 65536, "enabled": True, "inconsistent": False, "dirty-bytes": 131072},
        {"name": "tuesday\x1b[2J", "granularity": 32768, "enabled": False, "inconsistent": False, "dirty-bytes": 0}]}
    rows = [line.split() for line in cairn("bitmap", "--list", "a.qcow2").out.splitlines()]
    assert rows == [["NAME", "STATE", "GRANULARITY", "DIRTY"], ["monday", "enabled", "64", "KiB", "128", "KiB"],
                    ["tuesday\\x1b[2J", "disabled", "32", "KiB", "0", "B"]]
    assert (folder / "a.qcow2").read_bytes() == before
    for words in (["--list", "a.qcow2", "monday"], ["--list", "--clear", "a.qcow2"]):
        assert cairn("bitmap", *words, ok=False).code == 1
    assert ours("bitmap", "--list", "a.qcow2", ok=False).code == 1
    cairn("create", "-q", "a.raw", "4M")
    assert "keeps no bitmaps" in cairn("bitmap", "--list", "-f", "raw", "a.raw", ok=False).err


@pytest.mark.parametrize("words, warned", [(["-b", "0.0.0.0"], True), ([], False), (["-b", "0.0.0.0", "-q"], False),
                                           (["-b", "localhost"], False)])
def test_serving_to_everybody_in_clear_is_warned_of(folder, cairn, words, warned):
    cairn("create", "-q", "a.qcow2", "1M")
    port = free_port()
    one = Server([CAIRN, "serve", "-p", port, *words, "a.qcow2"], None, port)
    one.stop()
    said = one.job.stderr.read()
    one.end()
    assert ("without TLS: everyone who can reach it can read and change the disk" in said) == warned, said


def test_compact_keeps_a_file_that_would_not_become_smaller(folder, cairn, qemu_io):
    cairn("create", "-q", "a.qcow2", "4M")
    qemu_io("a.qcow2", "write -P 1 0 1M")
    cairn("compact", "-q", "a.qcow2")
    before = os.stat("a.qcow2")
    content = (folder / "a.qcow2").read_bytes()
    assert "the old file was kept" in cairn("compact", "a.qcow2").out
    after = os.stat("a.qcow2")
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert (folder / "a.qcow2").read_bytes() == content and os.listdir() == ["a.qcow2"]
    # What is asked for beside space is done.
    cairn("compact", "-q", "-o", "compat=0.10", "a.qcow2")
    assert os.stat("a.qcow2").st_ino != before.st_ino
