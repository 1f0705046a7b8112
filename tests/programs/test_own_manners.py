"""What our own name has beyond QEMU's verbs: key files, `umount`, `bitmap --list`, warnings."""
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
