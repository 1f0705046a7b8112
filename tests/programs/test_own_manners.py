"""What our own name has beyond QEMU's verbs: key files, `umount`, `bitmap --list`, warnings."""
import os

import pytest

from conftest import CAIRN
from nbd_support import Server, free_port


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
