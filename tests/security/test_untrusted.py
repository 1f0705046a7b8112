"""--untrusted: the verbs that read images of strangers, in the sandbox."""
import os
import signal
import subprocess
import time

import pytest

from conftest import CAIRN, sparse_disk

pytestmark = pytest.mark.any_engine


@pytest.fixture
def disks(folder, qemu):
    sparse_disk("a.raw", 3 << 20, pieces=20)
    qemu("convert", "-c", "-O", "qcow2", "a.raw", "a.qcow2")
    (folder / "d/sub").mkdir(parents=True)
    (folder / "d/sub/file").write_text("inside")
    (folder / "d/out").symlink_to(folder / "a.raw")
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["info", "a.qcow2"],
        ["info", "--output=json", "a.raw"],
        ["check", "a.qcow2"],
        ["map", "--output=json", "a.qcow2"],
        ["compare", "a.raw", "a.qcow2"],
        ["measure", "-O", "qcow2", "a.qcow2"],
        ["hash", "a.qcow2"],
        ["info", "missing"],
        ["info", "--image-opts", "driver=qcow2,file.driver=file,file.filename=a.qcow2"],
        ["info", "file:a.qcow2"],
        ["info", "json:{'driver':'raw','file':{'driver':'file','filename':'a.raw'}}"],
        ["compare", "a.raw", "missing"],
        ["info", "fat:d"],
        ["hash", "fat:floppy:d"],
        ["info", "--image-opts", "driver=raw,file.driver=vvfat,file.dir=d"],
    ],
    ids=" ".join,
)
def test_the_same_inside_and_outside(disks, cairn, words):
    outside, inside = cairn(*words, ok=False), cairn(words[0], "--untrusted", *words[1:], ok=False)
    assert (outside.code, outside.out, outside.err) == (inside.code, inside.out, inside.err)


@pytest.mark.parametrize(
    "words",
    [["a.raw", "t.qcow2"], ["-c", "a.qcow2", "t.qcow2"], ["a.qcow2", "t.raw"]],
    ids=" ".join,
)
def test_convert(disks, cairn, qemu, words):
    cairn("convert", "--untrusted", "--verify", *words)
    qemu("compare", "a.raw", words[-1])
    cairn("convert", "--untrusted", "--overwrite", *words)  # over the one that is there
    qemu("compare", "a.raw", words[-1])


def test_only_the_named_files_can_be_opened(disks, cairn, qemu):
    """A layer below that the command line does not name is shut off, whatever names it."""
    qemu("create", "-q", "-f", "qcow2", "-b", "a.raw", "-F", "raw", "over.qcow2")
    for verb in ("hash", "map", "measure"):
        done = cairn(verb, "--untrusted", "over.qcow2", ok=False)
        assert done.code == 1 and "a.raw" in done.err
    assert cairn("info", "--untrusted", "over.qcow2").code == 0


@pytest.mark.parametrize(
    "name",
    [
        "nbd://127.0.0.1:1/x",
        "http://127.0.0.1:1/x",
        "ssh://127.0.0.1:1/x",
        "sheepdog://127.0.0.1:1/x",
        "s3://bucket/x",
        "rbd:pool/image",
        'json:{"driver":"iscsi","transport":"tcp","portal":"127.0.0.1:1","target":"t"}',
    ],
)
def test_servers_are_not_reached(disks, cairn, name):
    commands = [["info", name], ["compare", "a.raw", name]]
    if name.startswith(("nbd", "ssh", "sheepdog", "s3")):
        commands.append(["convert", "a.raw", "-O", "raw", name])
    for words in commands:
        refused = cairn(words[0], "--untrusted", *words[1:], ok=False)
        assert refused.code != 0 and "reaches a server, which is not allowed here" in refused.err
        assert "Copy the disk to a file first." in refused.err


def test_failed_work_leaves_nothing(disks, cairn):
    for words in (
        ["missing", "t.raw"],
        ["-f", "qcow2", "a.raw", "t.raw"],
        ["--budget", "output=64k", "a.raw", "t.raw"],
    ):
        assert cairn("convert", "--untrusted", *words, ok=False).code == 1
        assert not os.path.exists("t.raw")
    for words in (["check", "-r", "all", "missing"], ["convert", "-n", "a.raw", "missing"]):
        done = cairn(words[0], "--untrusted", *words[1:], ok=False)
        assert done.code == 1 and "No such file" in done.err and not os.path.exists("missing")
    (disks / "mine").write_bytes(b"mine")
    assert cairn("convert", "--untrusted", "missing", "mine", ok=False).code == 1
    assert (disks / "mine").read_bytes() == b"mine"


def test_a_bomb_is_stopped(disks, cairn, qemu):
    """A small image full of clusters that unpack to much."""
    with open("flat.raw", "wb") as out:
        for i in range(64):
            out.write(bytes([i + 1]) * (4 << 20))
    qemu(
        "convert",
        "-c",
        "-O",
        "qcow2",
        "-o",
        "compression_type=zstd,cluster_size=2M",
        "flat.raw",
        "bomb.qcow2",
    )
    done = cairn(
        "convert", "--untrusted", "--budget", "output=100M", "bomb.qcow2", "t.raw", ok=False
    )
    assert done.code == 1 and "may be written" in done.err and not os.path.exists("t.raw")
    with open("big.raw", "wb") as out:
        out.truncate(4 << 40)
    done = cairn("hash", "--untrusted", "--budget", "cpu=1", "big.raw", ok=False)
    assert done.code == 1 and "--budget cpu=" in done.err


def test_wrong_budgets(disks, cairn):
    for budget in ("memory=1", "cpu=0", "disk=3", "cpu=x"):
        assert cairn("info", "--untrusted", "--budget", budget, "a.raw", ok=False).code == 1
    assert "--untrusted" in cairn("info", "--budget", "cpu=3", "a.raw", ok=False).err
    assert (
        "unrecognized option" in cairn("create", "--budget", "cpu=3", "b.raw", "1M", ok=False).err
    )


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(disks, which):
    with open("big.raw", "wb") as out:
        out.truncate(4 << 40)
    process = subprocess.Popen([CAIRN, "hash", "--untrusted", "big.raw"], stderr=subprocess.PIPE)
    time.sleep(0.4)
    process.send_signal(which)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 128 + which and b"cancelled" in err
