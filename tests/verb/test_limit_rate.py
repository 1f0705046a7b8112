"""--limit-rate: what is read and what is written keep to so many bytes a second; a signal ends the wait."""
import os
import signal
import subprocess
import time

import pytest

from conftest import CAIRN

pytestmark = pytest.mark.any_engine

SIZE = 4 << 20


@pytest.fixture
def disk(folder):
    (folder / "in.raw").write_bytes(os.urandom(SIZE))


def seconds(cairn, *words):
    begun = time.monotonic()
    cairn(*words)
    return time.monotonic() - begun


@pytest.mark.parametrize(
    "words",
    [
        ["convert", "--overwrite", "-f", "raw", "-O", "raw", "in.raw", "out.raw"],
        ["convert", "--overwrite", "-f", "raw", "-O", "qcow2", "-c", "in.raw", "out.qcow2"],
        ["hash", "-f", "raw", "in.raw"],
        ["compare", "-f", "raw", "-F", "raw", "in.raw", "in.raw"],
        ["dd", "-f", "raw", "if=in.raw", "of=dd.raw", "bs=1M"],
    ],
    ids=lambda words: " ".join(words[:1] + words[-2:]),
)
def test_four_megabytes_take_a_second_at_least(disk, cairn, words):
    assert seconds(cairn, *words, "--limit-rate", "2M") >= 1


def test_commit_rebase_and_compact(disk, folder, cairn, qemu):
    qemu("create", "-f", "qcow2", "-b", "in.raw", "-F", "raw", "top.qcow2")
    cairn("io", "-c", f"write -P 7 0 {SIZE}", "top.qcow2")
    assert seconds(cairn, "commit", "--limit-rate", "2M", "-d", "top.qcow2") >= 1
    assert seconds(cairn, "rebase", "--limit-rate", "100M", "-b", "", "top.qcow2") < 60
    assert seconds(cairn, "compact", "--limit-rate", "2M", "top.qcow2", "new.qcow2") >= 1
    assert set((folder / "in.raw").read_bytes()) == {7}


def test_holes_cost_nothing(folder, cairn):
    with open(folder / "in.raw", "wb") as file:
        file.truncate(1 << 40)
    cairn(
        "convert", "--limit-rate", "1M", "-f", "raw", "-O", "raw", "in.raw", "out.raw", timeout=60
    )
    assert (folder / "out.raw").stat().st_size == 1 << 40


@pytest.mark.parametrize("option", ["--limit-rate", "-r"])
@pytest.mark.parametrize("verb", ["convert", "commit"])
def test_a_signal_ends_the_wait(disk, folder, qemu, option, verb):
    words = ["-f", "raw", "-O", "raw", "in.raw", "out.raw"]
    if verb == "commit":
        qemu("create", "-f", "qcow2", "-b", "in.raw", "-F", "raw", "top.qcow2")
        qemu("convert", "-n", "-f", "raw", "-O", "qcow2", "in.raw", "top.qcow2")
        words = ["-d", "top.qcow2"]
    job = subprocess.Popen([CAIRN, verb, option, "1k", *words], stderr=subprocess.PIPE)
    status = f"/proc/{job.pid}/status"
    until = time.monotonic() + 30
    # Its handler of the signal is there.
    while not any(
        int(line.split()[1], 16) & 1 << signal.SIGINT - 1
        for line in open(status)
        if line.startswith("SigCgt")
    ):
        assert time.monotonic() < until and job.poll() is None
        time.sleep(0.02)
    time.sleep(0.5)
    begun = time.monotonic()
    job.send_signal(signal.SIGINT)
    job.communicate(timeout=30)
    assert job.returncode == 128 + signal.SIGINT and time.monotonic() - begun < 2
    assert not (folder / "out.raw").exists()


@pytest.mark.parametrize("rate", ["0", "-1", "fast", ""])
def test_what_is_no_rate(disk, folder, cairn, rate):
    words = ["convert", f"--limit-rate={rate}", "-f", "raw", "-O", "raw", "in.raw", "out.raw"]
    failed = cairn(*words, ok=False)
    assert failed.code == 1 and "rate limit" in failed.err and not (folder / "out.raw").exists()


def test_not_under_the_name_of_qemu_img(disk, ours):
    assert ours("convert", "--limit-rate", "2M", "in.raw", "out.raw", ok=False).code == 1
