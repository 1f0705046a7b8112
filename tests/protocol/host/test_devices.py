"""Block devices (loop devices), failing files, and options of drivers that only programs exercise."""
import os
import subprocess

import pytest

from conftest import CAIRN, sparse_disk


@pytest.mark.parametrize("cache", ["writeback", "none", "directsync"])
def test_images_on_a_device(ours, qemu, folder, loop, cache):
    disk = sparse_disk("disk.raw", 8 << 20)
    with open("back", "wb") as out:
        out.truncate(16 << 20)
    device = loop("back")
    ours("convert", "-n", "-t", cache, "-O", "raw", disk, device)
    ours("resize", "-q", "-f", "raw", device, 16 << 20)
    assert ours("compare", disk, device).code == 0
    ours("convert", "-t", cache, "-O", "qcow2", disk, device)
    qemu("check", "-q", "-f", "qcow2", device)
    assert "identical" in qemu("compare", "-F", "qcow2", disk, device).out
    ours("convert", "-T", cache, "-f", "qcow2", "-O", "raw", device, "copy.raw")
    assert open("copy.raw", "rb").read() == open(disk, "rb").read()
    for words in (
        ["info", device],
        ["info", "--output=json", device],
        ["info", "-f", "host_device", device],
    ):
        assert ours(*words).out == qemu(*words).out


def test_devices_do_not_grow_and_keep_their_mode(ours, folder, loop):
    with open("back", "wb") as out:
        out.truncate(4 << 20)
    device = loop("back")
    with open("big.raw", "wb") as out:
        out.truncate(5 << 20)
    assert "Cannot grow device files" in ours("convert", "big.raw", device, ok=False).err
    assert "Cannot resize device files" in ours("resize", "-f", "raw", device, "5M", ok=False).err
    fixed = loop("back", "-r")
    refused = ours("bench", "-w", "-c", "1", "-f", "raw", fixed, ok=False)
    assert refused.code == 1 and fixed in refused.err


def test_a_full_device_fails_the_conversion(ours, folder, loop):
    with open("noise.raw", "wb") as out:
        out.write(os.urandom(6 << 20))
    with open("back", "wb") as out:
        out.truncate(4 << 20)
    device = loop("back")
    failed = ours("convert", "-O", "qcow2", "noise.raw", device, ok=False)
    assert (
        failed.code == 1
        and "error while writing at byte" in failed.err
        and "No space left" in failed.err
    )


@pytest.mark.parametrize(
    "at, message", [("read", "error while reading at byte"), ("any", "Input/output error")]
)
def test_errors_of_the_source_fail_the_conversion(cairn, qemu, disk, at, message):
    qemu("convert", "-O", "qcow2", disk, "a.qcow2")
    words = f"driver=qcow2,file.driver=fault,file.on={at},file.after=9,file.file.driver=file,file.file.filename=a.qcow2"
    if at == "any":
        words = words.replace("file.after=9", "file.after=1")
    failed = cairn("convert", "--image-opts", words, "-O", "raw", "out.raw", ok=False)
    if failed.code == 0:
        pytest.fail("the fault was not met")
    assert failed.code == 1 and message in failed.err


def test_errors_of_the_target_fail_the_conversion(cairn, qemu, disk):
    qemu("create", "-q", "-f", "qcow2", "t.qcow2", disk.stat().st_size)
    words = "driver=qcow2,file.driver=fault,file.on=write,file.after=5,file.errno=28,file.file.driver=file,file.file.filename=t.qcow2"
    failed = cairn("convert", "-n", "--target-image-opts", disk, words, ok=False)
    assert (
        failed.code == 1
        and "error while writing at byte" in failed.err
        and "No space left" in failed.err
    )
    assert qemu("check", "t.qcow2", ok=False).code in (0, 3)


def test_compare_tells_steps_apart(ours, qemu, disk):
    qemu("convert", "-O", "qcow2", disk, "a.qcow2")
    words = "driver=qcow2,file.driver=fault,file.on=read,file.after=8,file.file.driver=file,file.file.filename={}"
    assert (
        ours(
            "compare", "--image-opts", words.format("a.qcow2"), words.format("a.qcow2"), ok=False
        ).code
        == 4
    )
    assert ours("compare", "missing", disk, ok=False).code == 2


@pytest.mark.parametrize(
    "options",
    [
        "l2-cache-size=4k",
        "cache-size=1M,l2-cache-size=512k",
        "l2-cache-entry-size=512",
        "refcount-cache-size=256k",
        "overlap-check=none",
        "overlap-check=all",
        "lazy-refcounts=on",
        "pass-discard-request=off",
        "discard-no-unref=on",
        "cache-clean-interval=1",
        "discard=ignore",
        "cache.direct=on",
        "cache.no-flush=on",
        "file.aio=io_uring",
        "detect-zeroes=unmap,discard=unmap",
    ],
)
def test_runtime_options_of_qcow2(cairn, qemu, disk, options):
    qemu("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "a.qcow2", disk.stat().st_size)
    target = f"driver=qcow2,{options},file.driver=file,file.filename=a.qcow2"
    cairn("convert", "-n", "--target-image-opts", disk, target)
    qemu("check", "-q", "a.qcow2")
    assert "identical" in qemu("compare", "-f", "raw", disk, "a.qcow2").out


@pytest.mark.parametrize(
    "options, message",
    [
        ("overlap-check=some", "Unsupported value 'some' for qcow2 option 'overlap-check'"),
        ("l2-cache-entry-size=1000", "L2 cache entry size must be a power of two"),
        ("cache-size=1M,l2-cache-size=2M", "l2-cache-size may not exceed cache-size"),
        ("aio=native,driver=file", "aio=native was specified, but it requires cache.direct=on"),
    ],
)
def test_wrong_runtime_options_are_refused_as_by_qemu(cairn, qemu, disk, options, message):
    qemu("create", "-q", "-f", "qcow2", "a.qcow2", "1M")
    words = f"driver=qcow2,{options},file.filename=a.qcow2"
    if "driver=file" in options:
        words = "driver=raw,file.aio=native,file.driver=file,file.filename=a.qcow2"
    mine = cairn("map", "--image-opts", words, ok=False)
    assert mine.code == 1 and message in mine.err
    assert message in qemu("map", "--image-opts", words, ok=False).err


def test_killed_writer_leaves_a_sound_image(cairn, qemu, folder):
    """SIGKILL in the middle: nothing that a check calls corrupt."""
    import time

    for i in range(5):
        cairn(
            "create", "--overwrite", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "a.qcow2", "256M"
        )
        job = subprocess.Popen(
            [
                CAIRN,
                "bench",
                "-w",
                "-q",
                "-c",
                "2000000000",
                "-s",
                "3k",
                "-S",
                "9k",
                "-d",
                "8",
                "a.qcow2",
            ],
            stdout=subprocess.DEVNULL,
        )
        time.sleep(0.1 + 0.1 * i)
        job.kill()
        job.wait()
        # The kernel ends the ring of a killed process, and with it the locks, a moment later.
        for _ in range(100):
            if cairn("info", "a.qcow2", ok=False).code == 0:
                break
            time.sleep(0.05)
        assert qemu("check", "a.qcow2", ok=False).code in (0, 3)
        assert cairn("check", "a.qcow2", ok=False).code in (0, 3)
