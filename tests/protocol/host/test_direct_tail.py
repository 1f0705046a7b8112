"""Direct I/O in blocks of 4 KiB, as files in memory want it: a file ends where its format says."""
import os
import shutil
import tempfile

import pytest

from conftest import CAIRN, call
from nbd_support import Server

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture
def memory(monkeypatch):
    """A directory on a file system in memory, where there is one."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    name = tempfile.mkdtemp(prefix="cairn-direct-", dir=base)
    monkeypatch.chdir(name)
    yield name
    shutil.rmtree(name)


@pytest.fixture
def odd(memory):
    """A disk whose size is no multiple of 4 KiB."""
    with open("odd.raw", "wb") as out:
        out.write(os.urandom(2 * MIB + 512))
    return "odd.raw"


@pytest.mark.parametrize("subformat", ["fixed", "dynamic"])
def test_vhd(odd, cairn, qemu, subformat):
    cairn(
        "convert",
        "-t",
        "none",
        "-O",
        "vpc",
        "-o",
        f"force_size=on,subformat={subformat}",
        odd,
        "a.vhd",
    )
    assert open("a.vhd", "rb").read()[-512:-504] == b"conectix"
    if subformat == "fixed":
        assert os.path.getsize("a.vhd") == os.path.getsize(odd) + 512
    qemu("compare", "-F", "vpc", odd, "a.vhd")
    cairn("io", "-t", "none", "-c", f"write -P 5 {2 * MIB - 512} 1k", "a.vhd")
    cairn("io", "-t", "none", "-c", f"write -P 5 {2 * MIB - 512} 1k", odd)
    assert open("a.vhd", "rb").read()[-512:-504] == b"conectix"
    qemu("compare", "-F", "vpc", odd, "a.vhd")


@pytest.mark.parametrize("length", [512, 1024, 4096, 4608, 70000])
def test_the_last_sectors_of_a_raw_disk(odd, cairn, length):
    before = open(odd, "rb").read()
    cairn("io", "-f", "raw", "-t", "none", "-c", f"write -P 9 {len(before) - length} {length}", odd)
    assert open(odd, "rb").read() == before[:-length] + b"\x09" * length


def test_served(odd, folder_socket):
    before = open(odd, "rb").read()
    server = Server(
        [CAIRN, "serve", "-k", folder_socket, "--cache", "none", "-f", "raw", odd], folder_socket
    )
    try:
        call(
            "qemu-io",
            "-f",
            "raw",
            "-c",
            f"write -P 7 {len(before) - 512} 512",
            f"nbd+unix:///?socket={folder_socket}",
        )
    finally:
        server.end()
    assert open(odd, "rb").read() == before[:-512] + b"\x07" * 512


@pytest.fixture
def folder_socket(memory):
    return os.path.join(memory, "s")


def test_disk_with_sectors_of_4_kib(loop, odd, cairn):
    """A device of whole blocks behaves as before."""
    with open("device.img", "wb") as out:
        out.truncate(4 * MIB)
    device = loop("device.img", "--sector-size", "4096")
    cairn("convert", "-n", "-t", "none", "-O", "raw", odd, device)
    whole = open("device.img", "rb").read()
    assert whole[: 2 * MIB + 512] == open(odd, "rb").read() and not any(whole[2 * MIB + 512 :])
