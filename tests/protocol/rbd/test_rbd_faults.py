"""A librbd that lies, stalls and answers twice: behaviours that the real one has at times, and some that it should never have."""
# Packages: gcc librbd-dev
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.any_engine
SIZE = 8 << 20
CONTENT = b"".join(bytes([1 + block % 100]) * 4096 for block in range(SIZE // 4096))
NAME = "json:" + json.dumps(
    {"driver": "raw", "file": {"driver": "rbd", "pool": "p", "image": "i", "timeout": 1}}
)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    place = tmp_path_factory.mktemp("fake")
    source = Path(__file__).parents[2] / "support/fake_rbd.c"
    words = ["cc", "-shared", "-fPIC", "-o", place / "librbd.so.1", source, "-lpthread"]
    subprocess.run(words, check=True)
    shutil.copy(place / "librbd.so.1", place / "librados.so.2")
    return place


@pytest.fixture
def fake(library, folder, cairn):
    def run(behaviour, *words, **more):
        env = {**os.environ, "LD_LIBRARY_PATH": str(library), "FAKE_RBD": behaviour}
        # What the library never gives back is no leak of ours.
        env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
        return cairn(*words, env=env, **more)

    return run


@pytest.mark.parametrize(
    "behaviour",
    [
        "",
        "at-once",
        "twice",
        "at-once-and-error",
        "close-never",
        "shutdown-never",
        "size-changes",
        "objects-none",
        "objects-odd",
        "objects-huge",
        "diff-flood",
    ],
)
def test_right_bytes_nevertheless(fake, behaviour):
    fake(behaviour, "convert", "-O", "raw", NAME, "out.raw")
    assert Path("out.raw").read_bytes() == CONTENT
    done = fake(
        behaviour, "io", "-c", "write -P 3 1M 64k", "-c", "flush", "-c", "read -P 3 1M 64k", NAME
    )
    assert "failed" not in done.out + done.err


@pytest.mark.parametrize(
    "behaviour, words",
    [
        ("late", "Connection timed out"),
        ("never", "Connection timed out"),
        ("no-completion", "Cannot allocate memory"),
        ("read-refused", "Cannot allocate memory"),
        ("read-error", "Input/output error"),
        ("read-odd-error", "Unknown error 123456"),
        ("read-short", "the image is shorter than it was"),
        ("read-nothing", "the image is shorter than it was"),
        ("read-long", "bytes for"),
        ("read-huge", "bytes for"),
        ("open-error", "error reading header from i"),
        ("open-never", "the Ceph cluster does not answer"),
        ("connect-error", "error connecting"),
        ("connect-never", "the Ceph cluster does not answer"),
        ("size-huge", "which is too large"),
        ("size-error", "error getting the size"),
        ("diff-error", "Input/output error"),
    ],
)
def test_an_error(fake, behaviour, words):
    begun = time.monotonic()
    failed = fake(behaviour, "convert", "-O", "raw", NAME, "out.raw", ok=False)
    assert failed.code == 1 and words in failed.err
    assert not os.path.exists("out.raw") and time.monotonic() - begun < 30


@pytest.mark.parametrize(
    "behaviour, words",
    [
        ("write-full", "No space left on device"),
        ("write-quota", "Disk quota exceeded"),
        ("lock-lost", "Read-only file system"),
        ("flush-error", "Input/output error"),
        ("locked", "Another client has the lock of the image i"),
        ("lock-never", "the Ceph cluster does not answer"),
    ],
)
def test_an_error_of_writing(fake, behaviour, words):
    failed = fake(behaviour, "io", "-c", "write 0 64k", "-c", "flush", NAME, ok=False)
    assert failed.code == 1 and words in failed.out + failed.err


@pytest.mark.parametrize("behaviour", ["snaps-grow", "snaps-same"])
def test_an_endless_list_of_snapshots(fake, behaviour):
    failed = fake(behaviour, "snapshot", "-l", "-f", "raw", NAME, ok=False)
    assert failed.code == 1 and "makes no sense" in failed.err


@pytest.mark.parametrize("behaviour", ["snaps-many", "snaps-nameless"])
def test_an_odd_list_of_snapshots(fake, behaviour):
    fake(behaviour, "info", NAME)


def test_extents_that_overlap(fake):
    answer = fake("diff-overlaps", "map", "--output=json", NAME).json()
    extents = answer if isinstance(answer, list) else answer["extents"]
    found = [(each["start"] >> 20, each["length"] >> 20) for each in extents if each["data"]]
    assert found == [(0, 4), (5, 1)]


def test_extents_outside(fake):
    answer = fake("diff-outside", "map", "--output=json", NAME).json()
    extents = answer if isinstance(answer, list) else answer["extents"]
    found = [(each["start"] >> 20, each["length"] >> 20) for each in extents if each["data"]]
    assert found == [(7, 1)]


def test_a_size_that_stays(fake):
    failed = fake("resize-lies", "resize", "-f", "raw", NAME, "16M", ok=False)
    assert failed.code == 1 and "it has 8388608 bytes" in failed.err


def test_many_without_an_answer(fake):
    words = [word for offset in range(40) for word in ("-c", f"aio_read {offset * 128}k 128k")]
    done = fake("never", "io", *words, NAME, ok=False, timeout=50)
    assert done.code != 0 and "timed out" in done.out + done.err


def test_no_library(folder, cairn, tmp_path):
    """An error that names the package."""
    (tmp_path / "librados.so.2").write_bytes(b"no library")
    env = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    failed = cairn("info", "rbd:pool/image", env=env, ok=False)
    assert failed.code == 1 and "apt-get install librbd1" in failed.err
