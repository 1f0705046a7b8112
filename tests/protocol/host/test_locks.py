"""Both programs refuse each other where QEMU refuses itself."""
import subprocess
import time

import pytest

from conftest import CAIRN, line_with


@pytest.fixture
def held(folder, qemu):
    """Starts a program that holds an image until the test ends."""
    running = []

    def hold(program, mode, image, fmt):
        if program == "qemu":
            words = ["qemu-io", "-f", fmt] + (["-r"] if mode == "read" else []) + [image]
            job = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            job.stdin.write("read 0 512\n")
            job.stdin.flush()
            line_with(job, "read 512/512")
        else:
            words = [CAIRN, "bench", "-f", fmt, "-d", "1", "-c", "2000000000"] + (
                ["-w"] if mode == "write" else []
            )
            job = subprocess.Popen([*words, image], stdout=subprocess.PIPE, text=True)
            job.stdout.readline()
            time.sleep(0.3)
            assert job.poll() is None
        running.append(job)
        return job

    yield hold
    for job in running:
        job.kill()
        job.wait()


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
@pytest.mark.parametrize("first", ["read", "write"])
@pytest.mark.parametrize("second", ["read", "write"])
def test_refusals_agree(held, qemu, folder, fmt, first, second):
    qemu("create", "-q", "-f", fmt, "disk", "8M")

    def attempt(program):
        if program == "qemu":
            words = (
                ["qemu-io", "-f", fmt]
                + (["-r"] if second == "read" else [])
                + ["-c", "read 0 512", "disk"]
            )
        else:
            words = (
                [CAIRN, "bench", "-f", fmt, "-c", "1"]
                + (["-w"] if second == "write" else [])
                + ["disk"]
            )
        return subprocess.run(words, capture_output=True, text=True)

    expected = None
    for holder, comer in (
        ("qemu", "qemu"),
        ("qemu", "cairn"),
        ("cairn", "qemu"),
        ("cairn", "cairn"),
    ):
        job = held(holder, first, "disk", fmt)
        got = attempt(comer)
        if expected is None:
            expected = got.returncode
        assert (got.returncode == 0) == (expected == 0), (holder, comer, got.stderr)
        if got.returncode and comer == "cairn":
            assert (
                "lock" in got.stderr and "Is another process using the image [disk]?" in got.stderr
            )
            assert str(job.pid) in got.stderr
        job.kill()
        job.wait()


def test_force_share_looks_past_a_writer(held, cairn, qemu):
    qemu("create", "-q", "-f", "qcow2", "disk", "8M")
    held("qemu", "write", "disk", "qcow2")
    assert cairn("info", "disk", ok=False).code == 1
    assert cairn("info", "-U", "disk").code == 0


def test_creation_does_not_touch_an_image_in_use(held, cairn, qemu):
    qemu("create", "-q", "-f", "qcow2", "disk", "8M")
    held("qemu", "write", "disk", "qcow2")
    before = open("disk", "rb").read()
    assert cairn("create", "-f", "qcow2", "disk", "1M", ok=False).code == 1
    assert open("disk", "rb").read() == before


def test_locking_can_be_turned_off(held, cairn, qemu):
    qemu("create", "-q", "-f", "qcow2", "disk", "8M")
    held("qemu", "write", "disk", "qcow2")
    options = "driver=qcow2,file.driver=file,file.locking={},file.filename=disk"
    for locking, code in (("on", 1), ("auto", 1), ("off", 0)):
        assert (
            cairn("bench", "-c", "1", "--image-opts", options.format(locking), ok=False).code
            == code
        )
