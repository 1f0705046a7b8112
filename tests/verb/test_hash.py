"""Digests of disks: `hash`, `convert --hash`; and `convert --verify`."""
import hashlib
import os
import subprocess
import time

import pytest

from conftest import CAIRN, sparse_disk

pytestmark = pytest.mark.any_engine


def digest_of(path, algorithm="sha256"):
    return hashlib.new(algorithm, path.read_bytes()).hexdigest()


@pytest.fixture
def disks(folder, qemu, qemu_io):
    sparse_disk("a.raw", 5 << 20, pieces=40)
    qemu("convert", "-O", "qcow2", "a.raw", "a.qcow2")
    qemu("convert", "-c", "-O", "qcow2", "a.raw", "c.qcow2")
    qemu("create", "-q", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", "over.qcow2")
    qemu_io("over.qcow2", "write -P 1 0 8k", "write -z 128k 64k", "write -P 7 4M 100k")
    qemu("convert", "-O", "raw", "over.qcow2", "over.raw")
    return folder


@pytest.mark.parametrize("image", ["a.raw", "a.qcow2", "c.qcow2", "over.qcow2"])
def test_hash_is_that_of_the_raw_content(disks, cairn, image):
    flat = disks / ("over.raw" if image == "over.qcow2" else "a.raw")
    assert cairn("hash", image).out == f"{digest_of(flat)}  {image}\n"
    for ours, theirs in (
        ("sha512", "sha512"),
        ("sha1", "sha1"),
        ("md5", "md5"),
        ("blake2b", "blake2b"),
        ("blake2s", "blake2s"),
        ("sha3-256", "sha3_256"),
        ("sha384", "sha384"),
    ):
        done = cairn("hash", "-a", ours, "--output=json", image).json()
        assert done.pop("schema") == "cairn/hash/1"
        assert done == {
            "algorithm": ours,
            "digest": digest_of(flat, theirs),
            "filename": image,
            "format": image.split(".")[1],
            "virtual-size": 5 << 20,
        }


def test_hash_of_odd_lengths_and_nothing(folder, cairn):
    for length in (0, 1, 511, 1000, 4097):
        (folder / "odd").write_bytes(os.urandom(length))
        whole = (folder / "odd").read_bytes()
        whole += bytes(-length % 512)
        assert cairn("hash", "-f", "raw", "odd").out.split()[0] == hashlib.sha256(whole).hexdigest()


def test_holes_are_not_read(folder, cairn):
    with open("big.raw", "wb") as out:
        out.truncate(300 << 20)
        out.seek(200 << 20)
        out.write(b"here")
    sum_of_it = subprocess.run(
        ["sha256sum", "big.raw"], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    assert cairn("hash", "big.raw").out.split()[0] == sum_of_it
    # Reading anything but the piece with data fails here: nothing else is read.
    words = "driver=raw,file.driver=fault,file.on=read,file.offset=100M,file.file.filename=big.raw"
    assert cairn("hash", "--image-opts", words).out.split()[0] == sum_of_it
    failed = cairn("hash", "--image-opts", words.replace("100M", "200M"), ok=False)
    assert (
        failed.code == 1
        and f"error while reading at byte {200 << 20}: Input/output error" in failed.err
    )


def test_hash_of_a_snapshot(disks, cairn, qemu, qemu_io):
    qemu("snapshot", "-c", "before", "a.qcow2")
    qemu_io("a.qcow2", "write -P 9 0 1M")
    assert cairn("hash", "-l", "before", "a.qcow2").out.split()[0] == digest_of(disks / "a.raw")
    assert cairn("hash", "a.qcow2").out.split()[0] != digest_of(disks / "a.raw")


def test_wrong_words(disks, cairn, ours):
    done = cairn("hash", "-a", "crc", "a.raw", ok=False)
    assert done.code == 1 and "Unknown digest 'crc'" in done.err and "sha256, sha512" in done.err
    assert (
        cairn("hash", ok=False).code == 1 and cairn("hash", "a.raw", "c.qcow2", ok=False).code == 1
    )
    assert cairn("convert", "--hash", "crc", "a.raw", "b.qcow2", ok=False).code == 1
    assert not os.path.exists("b.qcow2")
    # None of it exists under the other name.
    assert "Command not found" in ours("hash", "a.raw", ok=False).err
    assert "unrecognized option" in ours("convert", "--verify", "a.raw", "b.raw", ok=False).err


@pytest.mark.parametrize(
    "words",
    [
        ["a.raw", "t.qcow2"],
        ["a.qcow2", "t.raw"],
        ["-c", "a.raw", "t.qcow2"],
        ["-W", "over.qcow2", "t.raw"],
        ["-S", "0", "c.qcow2", "t.raw"],
        ["-m", "1", "a.raw", "t.qcow2"],
        ["-m", "16", "-c", "c.qcow2", "t.qcow2"],
        ["-B", "a.qcow2", "-F", "qcow2", "over.qcow2", "t.qcow2"],
        ["-c", "-B", "a.qcow2", "-F", "qcow2", "over.qcow2", "t.qcow2"],
    ],
    ids=" ".join,
)
def test_convert_prints_the_digest_and_verifies(disks, cairn, words):
    flat = disks / ("over.raw" if "over.qcow2" in words else "a.raw")
    done = cairn("convert", "--hash", "sha256", "--verify", *words)
    assert (
        done.out
        == f"{digest_of(flat)}  {words[-1]}\nVerified: the target has the content of the source.\n"
    )
    assert cairn("hash", words[-1]).out.split()[0] == digest_of(flat)


def test_joined_sources(disks, cairn):
    (disks / "s.raw").write_bytes(os.urandom(70000))
    done = cairn(
        "convert", "-q", "--hash", "sha512", "--verify", "a.raw", "s.raw", "c.qcow2", "t.qcow2"
    )
    whole = b"".join(
        (disks / name).read_bytes() + bytes(-(disks / name).stat().st_size % 512)
        for name in ("a.raw", "s.raw", "a.raw")
    )
    assert done.out == hashlib.sha512(whole).hexdigest() + "  t.qcow2\n"


def test_verify_sees_what_storage_lost(disks, cairn):
    """A claim that the target reads as zeroes, and it does not: zeroes are not written."""
    (disks / "t.raw").write_bytes(b"\xee" * (5 << 20))
    done = cairn("convert", "-n", "--target-is-zero", "--verify", "a.raw", "t.raw", ok=False)
    assert done.code == 2 and "'t.raw' differs from the source at byte" in done.err
    assert "must not be used" in done.err
    where = int(done.err.split("at byte ")[1].split(",")[0])
    a, t = (disks / "a.raw").read_bytes(), (disks / "t.raw").read_bytes()
    assert a[:where] == t[:where] and a[where : where + 512] != t[where : where + 512]


def test_verify_into_a_longer_target(disks, cairn):
    (disks / "t.raw").write_bytes(b"\xee" * (6 << 20))
    cairn("convert", "-n", "--verify", "a.raw", "t.raw")
    assert (disks / "t.raw").read_bytes()[5 << 20 :] == bytes(1 << 20)
    done = cairn("convert", "--verify", "--salvage", "a.raw", "t.raw", ok=False)
    assert done.code == 1 and "--verify cannot" in done.err
    assert "--hash needs" in cairn("convert", "-C", "--hash", "md5", "a.raw", "t.raw", ok=False).err


def test_interrupted_hash_ends_soon(folder):
    with open("huge.raw", "wb") as out:
        out.truncate(4 << 40)
    process = subprocess.Popen(
        [CAIRN, "hash", "huge.raw"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    time.sleep(0.3)
    process.terminate()
    out, err = process.communicate(timeout=20)
    assert process.returncode not in (0, None) and out == b"" and b"cancelled" in err
