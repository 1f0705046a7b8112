"""--snapshot: every verb that writes to an image can leave it as it is."""
import hashlib
import subprocess
import time

import pytest

import dmg_writer as dmg
from conftest import CAIRN, call, sparse_disk
from cloop_writer import content, write


@pytest.fixture(params=["raw", "qcow2", "dmg", "cloop"])
def image(request, folder, qemu):
    """An image, of formats that are written and of such that never are."""
    name = f"disk.{request.param}"
    sparse_disk("plain.raw", 1 << 20)
    if request.param == "dmg":
        (folder / name).write_bytes(dmg.image([(0, [(dmg.ZLIB, content(1 << 20))])])[0])
    elif request.param == "cloop":
        write(name, content(1 << 20), 65536)
    else:
        qemu("convert", "-O", request.param, "plain.raw", name)
    before = (folder / name).read_bytes()
    yield name
    assert hashlib.sha256((folder / name).read_bytes()).digest() == hashlib.sha256(before).digest()


def fmt(image):
    return image.rsplit(".")[-1]


def test_io(image, cairn):
    cairn(
        "io",
        "-s",
        "-f",
        fmt(image),
        "-c",
        "write -P 7 1000 70000",
        "-c",
        "read -P 7 1000 70000",
        image,
    )


def test_bench(image, cairn, ours):
    assert (
        "Run completed"
        in cairn("bench", "--snapshot", "-w", "-c", "100", "-s", "4k", "-f", fmt(image), image).out
    )
    assert ours("bench", "--snapshot", "-w", "-c", "1", "-f", fmt(image), image, ok=False).code == 1


@pytest.mark.parametrize("verb", [["serve"], ["nbd"]], ids=" ".join)
def test_exports(image, folder, verb):
    words = ["--socket", "sock"] if verb == ["serve"] else ["-k", str(folder / "sock"), "-t"]
    server = subprocess.Popen(
        [CAIRN, *verb, *words, "--snapshot", "-f", fmt(image), image], stdout=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            done = call(
                "qemu-io",
                "-f",
                "raw",
                "-c",
                "write -P 9 4096 70000",
                "-c",
                "read -P 9 4096 70000",
                f"nbd+unix:///?socket={folder}/sock",
                ok=False,
            )
            if done.code == 0:
                break
            time.sleep(0.05)
        assert done.code == 0 and "failed" not in done.out + done.err
    finally:
        server.terminate()
        assert server.wait(10) == 0


def test_mount(image, folder, cairn):
    (folder / "seen").touch()
    cairn("mount", "--fork", "--snapshot", "-f", fmt(image), image, "seen")
    try:
        with open("seen", "r+b") as disk:
            disk.seek(5000)
            disk.write(b"changed")
        assert (folder / "seen").read_bytes()[5000:5007] == b"changed"
    finally:
        subprocess.run(["fusermount3", "-u", "seen"], check=True)
        for _ in range(100):
            if subprocess.run(["fuser", "-s", image], capture_output=True).returncode:
                break
            time.sleep(0.05)
