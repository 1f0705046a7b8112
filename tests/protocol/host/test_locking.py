"""Image locking as qemu-block-drivers(7) describes it: which bytes `lslocks` shows, locking=on|off|auto with and without locks of
open files, and share-rw of a machine's disk."""
# Packages: qemu-system-x86 qemu-utils util-linux
import json
import os
import subprocess
import sys
import time

import pytest

from conftest import CAIRN, TOP, call, line_with

pytestmark = pytest.mark.any_engine
COMPAT = CAIRN.parent / "compat"
WARNING = (
    "warning: File lock requested but OFD locking syscall is unavailable, falling back to POSIX file locks\n"
    "Due to the implementation, locks can be lost unexpectedly.\n"
)
IN_USE = "Is another process using the image [disk]?"


def without_locks(number, *words):
    """The command line WORDS, to which the kernel denies locks of open files with the error NUMBER."""
    return [sys.executable, TOP / "tests/support/no_ofd_locks.py", number, *words]


def locked(image):
    """Kind, holder and bytes of the locks on IMAGE."""
    said = call("lslocks", "--noheadings", "-o", "TYPE,PID,INODE,MODE,START,END").out
    rows = [line.split() for line in said.splitlines()]
    found = [row for row in rows if row[2] == str(os.stat(image).st_ino)]
    assert all(row[3] == "READ" for row in found)
    whole = {byte for row in found for byte in range(int(row[4]), int(row[5]) + 1)}
    return {(kind, int(pid)) for kind, pid, *_ in found}, whole


@pytest.fixture
def started(folder):
    """Starts a program, says something to it and waits for an answer; ends it after the test."""
    running = []

    def start(says, answer, *words):
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        job = subprocess.Popen(list(map(str, words)), text=True, **pipes)
        running.append(job)
        job.stdin.write(says)
        job.stdin.flush()
        line_with(job, answer)
        return job

    yield start
    for job in running:
        job.kill()
        job.communicate()


@pytest.fixture
def hold(started):
    """Starts a shell of disks that has read from its disk."""
    return lambda *words: started("read 0 512\n", "read 512/512", *words)


def serve(*words):
    """Starts a server, that has the socket `s` then."""
    job = subprocess.Popen([*map(str, words), "-k", f"{os.getcwd()}/s"])
    until = time.monotonic() + 30
    while call("qemu-nbd", "-L", "-k", f"{os.getcwd()}/s", ok=False).code:
        assert job.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    return job


def options_of(fmt, locking="auto"):
    return f"driver={fmt},file.driver=file,file.filename=disk,file.locking={locking}"


@pytest.mark.parametrize(
    "fmt, words, held",
    [
        ("raw", ["-r"], {100}),
        ("raw", [], {100, 101}),
        ("qcow2", ["-r"], {100, 201, 203}),
        ("qcow2", [], {100, 101, 103, 201, 203}),
        ("qcow2", ["-r", "-U"], {100}),
    ],
    ids=["raw-read", "raw-write", "qcow2-read", "qcow2-write", "qcow2-shared"],
)
def test_the_bytes_that_lslocks_shows(hold, qemu, fmt, words, held):
    qemu("create", "-q", "-f", fmt, "disk", "4M")
    for program in (["qemu-io"], [COMPAT / "qemu-io"], [CAIRN, "io"]):
        job = hold(*program, *words, "-f", fmt, "disk")
        assert locked("disk") == ({("OFDLCK", -1)}, held), program
        job.communicate("quit\n", timeout=30)
        assert locked("disk") == (set(), set())


def test_every_file_of_a_chain_is_locked(hold, qemu):
    qemu("create", "-q", "-f", "qcow2", "base", "4M")
    qemu("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "disk")
    shown = []
    for program in (["qemu-io"], [CAIRN, "io"]):
        job = hold(*program, "disk")
        shown.append((locked("disk"), locked("base")))
        job.communicate("quit\n", timeout=30)
    assert shown[0] == shown[1] and shown[1][1][1] == {100, 201, 203}


def test_locking_off_locks_nothing(hold, qemu):
    qemu("create", "-q", "-f", "qcow2", "disk", "4M")
    hold(CAIRN, "io", "--image-opts", options_of("qcow2", "off"))
    assert locked("disk") == (set(), set())
    hold("qemu-io", "-f", "qcow2", "disk")


def test_locks_of_the_process_where_there_are_no_others(hold, qemu):
    """With locking=on alone, as with QEMU, and with its warning; others are refused."""
    qemu("create", "-q", "-f", "qcow2", "disk", "4M")
    on = ["--image-opts", options_of("qcow2", "on")]
    for program in (["qemu-io"], [COMPAT / "qemu-io"], [CAIRN, "io"]):
        job = hold(*without_locks("EINVAL", *program, *on))
        assert locked("disk") == ({("POSIX", job.pid)}, {100, 101, 103, 201, 203}), program
        for other in ([COMPAT / "qemu-img"], ["qemu-img"], [CAIRN]):
            refused = call(*other, "info", "disk", ok=False)
            assert refused.code == 1 and IN_USE in refused.err
        # Two without the locks of open files know of each other as well.
        refused = call(*without_locks("EINVAL", CAIRN, "io", *on, "-c", "read 0 512"), ok=False)
        assert refused.code == 1 and IN_USE in refused.err and str(job.pid) in refused.err
        said = job.communicate("quit\n", timeout=30)[1]
        assert WARNING in said and said.count("warning") == 1
        assert locked("disk") == (set(), set())


@pytest.mark.parametrize("number", ["EINVAL", "ENOSYS", "EOPNOTSUPP"])
def test_nothing_is_locked_where_nothing_was_asked_for(hold, qemu, number):
    qemu("create", "-q", "-f", "qcow2", "disk", "4M")
    for locking in "auto", "off":
        job = hold(
            *without_locks(number, CAIRN, "io", "--image-opts", options_of("qcow2", locking))
        )
        assert locked("disk") == (set(), set())
        assert "warning" not in job.communicate("quit\n", timeout=30)[1]
    for words in (
        ["create", "-q", "-f", "qcow2", "other", "4M"],
        ["convert", "-O", "qcow2", "disk", "copy"],
        ["check", "-q", "copy"],
        ["resize", "-q", "copy", "8M"],
    ):
        assert call(*without_locks(number, COMPAT / "qemu-img", *words)).err == ""


def test_a_file_system_that_cannot_lock_is_reported(folder, qemu):
    """Such as NFS without its lock daemon."""
    qemu("create", "-q", "-f", "qcow2", "disk", "4M")
    refused = call(*without_locks("ENOLCK", CAIRN, "check", "disk"), ok=False)
    assert refused.code == 1
    assert "Failed to lock byte 100: No locks available" in refused.err
    assert "file.locking=off" in refused.err
    call(*without_locks("ENOLCK", CAIRN, "check", "--image-opts", options_of("qcow2", "off")))


# --- share-rw ---


@pytest.fixture
def machine(started):
    """Starts a machine that does not run, with the image `disk`."""

    def start(fmt, share):
        node = {"driver": fmt, "node-name": "n", "file": {"driver": "file", "filename": "disk"}}
        return started(
            '{"execute": "qmp_capabilities"}',
            "return",
            *"qemu-system-x86_64 -M q35,accel=tcg -S -nodefaults -display none -qmp stdio -blockdev".split(),
            json.dumps(node),
            "-device",
            f"virtio-blk-pci,drive=n,share-rw={share}",
        )

    return start


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
@pytest.mark.parametrize("share", ["on", "off"])
def test_the_disk_of_a_machine(machine, qemu, fmt, share):
    """Another writer is let in where the machine shares its disk and the format allows it; so says QEMU's tool too."""
    qemu("create", "-q", "-f", fmt, "disk", "4M")
    machine(fmt, share)
    allowed = share == "on" and fmt == "raw"
    kinds, held = locked("disk")
    assert kinds == {("OFDLCK", -1)} and (201 in held) == (not allowed)
    for program in (["qemu-io"], [COMPAT / "qemu-io"], [CAIRN, "io"]):
        for words in (["-c", "write 0 512"], ["-r", "-c", "read 0 512"]):
            done = call(*program, "-f", fmt, *words, "disk", ok=False)
            assert (done.code == 0) == (allowed or (fmt, words[0]) == ("raw", "-r")), (
                words,
                done.err,
            )
            assert done.code == 0 or IN_USE in done.err


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_a_disk_that_we_serve(machine, hold, qemu, cairn, fmt):
    """An export lets others write to a raw image, but not change its size."""
    qemu("create", "-q", "-f", fmt, "disk", "4M")
    shown = []
    for program in (["qemu-nbd", "-t"], [CAIRN, "serve"]):
        job = serve(*program, "-f", fmt, "disk")
        try:
            hold("qemu-io", "-f", "raw", f"nbd+unix:///?socket={os.getcwd()}/s")
            shown.append(locked("disk"))
            assert (cairn("io", "-f", fmt, "-c", "write 0 512", "disk", ok=False).code == 0) == (
                fmt == "raw"
            )
            assert cairn("resize", "-f", fmt, "disk", "8M", ok=False).code == 1
        finally:
            job.kill()
            job.wait()
    assert shown[0] == shown[1]
    assert shown[1][1] == ({100, 101, 203} if fmt == "raw" else {100, 101, 103, 201, 203})


def test_a_shell_takes_the_right_to_resize_when_it_does(hold, qemu):
    """As QEMU's: before, it does not keep out those who need the size to stay."""
    qemu("create", "-q", "-f", "raw", "disk", "4M")
    job = hold(CAIRN, "io", "-f", "raw", "disk")
    with serve("qemu-nbd", "-t", "-f", "raw", "disk") as other:
        try:
            job.stdin.write("truncate 8M\nread 512 512\n")
            job.stdin.flush()
            line_with(job, "512/512")
            assert os.path.getsize("disk") == 4 << 20
        finally:
            other.kill()
    job.stdin.write("truncate 8M\nread 1024 512\n")
    job.stdin.flush()
    line_with(job, "512/512")
    assert os.path.getsize("disk") == 8 << 20 and locked("disk")[1] == {100, 101}
    assert 'Failed to get "resize" lock' in job.communicate("quit\n", timeout=30)[1]
