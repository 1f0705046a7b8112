"""What a qcow2 image may cost: memory while it is idle, and what storage that is full leaves of it."""
import os
import subprocess
import time

import pytest

from conftest import CAIRN


def resident(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmRSS"))


def wait_for(what, seconds=10):
    for _ in range(seconds * 20):
        if what():
            return True
        time.sleep(0.05)
    return False


# Slow: the address sanitizer keeps what is freed, and so has nothing to show here.
@pytest.mark.slow
@pytest.mark.parametrize("interval, leaves", [(1, True), (0, False)])
def test_tables_leave_memory_of_an_idle_image(folder, qemu, interval, leaves):
    qemu("create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", "a.qcow2", "8T")
    places = [i << 39 for i in range(16)]
    words = [word for place in places for word in ("-c", f"write -P 1 {place} 512")]
    subprocess.run(["qemu-io", *words, "a.qcow2"], check=True, stdout=subprocess.DEVNULL)
    server = subprocess.Popen(
        [
            CAIRN,
            "nbd",
            "-k",
            folder / "sock",
            "-t",
            "-r",
            "--image-opts",
            f"driver=qcow2,cache-clean-interval={interval},file.filename=a.qcow2",
        ]
    )
    try:
        assert wait_for(lambda: os.path.exists("sock"))
        start = resident(server.pid)
        words = [word for place in places for word in ("-c", f"read -P 1 {place} 512")]
        subprocess.run(
            ["qemu-io", "-r", "-f", "raw", *words, f"nbd+unix:///?socket={folder}/sock"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        if not leaves:
            assert resident(server.pid) - start > 24 << 20
            time.sleep(1.5)
            assert resident(server.pid) - start > 24 << 20
        else:
            assert wait_for(lambda: resident(server.pid) - start < 8 << 20)
    finally:
        server.terminate()
        assert server.wait(timeout=10) == 0


@pytest.mark.parametrize(
    "size, options",
    [
        (700 << 10, "cluster_size=512,refcount_bits=64"),
        (133 << 10, "cluster_size=512,refcount_bits=64"),
        (700 << 10, "cluster_size=4k"),
        (99 << 10, "cluster_size=512"),
    ],
    ids=str,
)
def test_storage_that_cannot_grow(folder, qemu, size, options):
    """On an export that is full nothing is left that lies past its end, and other requests go on."""
    with open("disk", "wb") as disk:
        disk.truncate(size)
    server = subprocess.Popen(["qemu-nbd", "-f", "raw", "-k", folder / "sock", "-t", "disk"])
    uri = f"nbd+unix:///?socket={folder}/sock"
    try:
        assert wait_for(lambda: os.path.exists("sock"))
        qemu("create", "-q", "-f", "qcow2", "-o", options, uri, "4M")
        done = subprocess.run(
            [
                CAIRN,
                "io",
                "--image-opts",
                "-c",
                "write -P 1 0 30k",
                "-c",
                "write -P 2 300k 1M",
                "-c",
                "write -P 3 10k 4k",
                "-c",
                "flush",
                f"driver=qcow2,file.driver=nbd,file.server.type=unix,file.server.path={folder}/sock",
            ],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1 and "No space left" in done.stdout + done.stderr
        assert "cairn: No space" not in done.stderr
        qemu("check", "-f", "qcow2", uri)
        subprocess.run(
            ["qemu-io", "-f", "qcow2", "-c", "read -P 1 0 10k", "-c", "read -P 3 10k 4k", uri],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    finally:
        server.terminate()
        server.wait(timeout=10)


def test_bitmap_tables_are_bounded_together(folder, qemu, cairn):
    """Thousands of directory entries that each name a large table in the same place."""
    import struct

    qemu("create", "-q", "-f", "qcow2", "a.qcow2", "1M")
    qemu("bitmap", "--add", "a.qcow2", "x")
    image = bytearray(open("a.qcow2", "rb").read())
    at = image.index(b"\x23\x85\x28\x75")
    directory = struct.unpack_from(">Q", image, at + 24)[0]
    table = struct.unpack_from(">Q", image, directory)[0]
    entries = b"".join(
        struct.pack(">QIIBBHI", table, 8192, 1, 1, 16, 4, 0) + b"%04d" % i + bytes(4)
        for i in range(9999)
    )
    struct.pack_into(">IIQQ", image, at + 8, 9999, 0, len(entries), directory)
    image[directory:] = entries
    open("a.qcow2", "wb").write(image)
    begin = time.monotonic()
    done = cairn("check", "a.qcow2", ok=False)
    assert done.code == 2 and "bitmap tables are longer than the file" in done.out + done.err
    assert time.monotonic() - begin < 5


def test_what_is_no_secret(folder, ours, qemu):
    qemu(
        "create",
        "-q",
        "--object",
        "secret,id=s0,data=x",
        "-f",
        "qcow2",
        "-o",
        "encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=10",
        "a.qcow2",
        "1M",
    )
    for key in ("a0", "gone"):
        told = [
            tool(
                "check",
                "--object",
                "authz-simple,id=a0,identity=me",
                "--image-opts",
                f"driver=qcow2,file.filename=a.qcow2,encrypt.key-secret={key}",
                ok=False,
            )
            for tool in (ours, qemu)
        ]
        assert told[0].code == told[1].code == 1 and told[0].err == told[1].err


@pytest.mark.parametrize("more", ["", ",extended_l2=on", ",cluster_size=4k"])
def test_preallocated_metadata_takes_space_for_itself_alone(folder, cairn, qemu, more):
    cairn("create", "-q", "-f", "qcow2", "-o", f"preallocation=metadata{more}", "a.qcow2", "5G")
    cairn("resize", "-q", "--preallocation=metadata", "a.qcow2", "9G")
    assert os.stat("a.qcow2").st_blocks * 512 < 32 << 20
    qemu("check", "-q", "a.qcow2")
