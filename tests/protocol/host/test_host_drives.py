"""Drives of the host: CD-ROM drives (a loop device that answers as one, for us and for QEMU alike), names of other systems,
devices that are in use, and devices that are none of ours."""
import os
import stat
import subprocess
from pathlib import Path

import pytest

from conftest import CAIRN, line_with, sparse_disk

NO_INFO, NO_DISC, TRAY_OPEN, NOT_READY, DISC_OK = range(5)


@pytest.fixture
def device(loop):
    sparse_disk("back", 4 << 20)
    return loop("back")


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    library = tmp_path_factory.mktemp("shim") / "cdrom.so"
    subprocess.run(
        [
            "gcc",
            "-shared",
            "-fPIC",
            "-O1",
            "-o",
            library,
            Path(__file__).parent / "cdrom_shim.c",
            "-ldl",
        ],
        check=True,
    )
    return library


@pytest.fixture
def drive(device, shim, monkeypatch, folder):
    """What is called from now on sees DEVICE as a drive; returns what sets its state."""
    state = folder / "state"
    monkeypatch.setenv("CDROM", device)
    monkeypatch.setenv("CDROM_STATE", str(state))
    monkeypatch.setenv("LD_PRELOAD", str(shim))
    # The runtime of the sanitizers need not be the first library.
    monkeypatch.setenv(
        "ASAN_OPTIONS", os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
    )

    def become(number):
        state.write_text(str(number))
        return device

    become(DISC_OK)
    return become


def same(ours, qemu, *words):
    mine, theirs = ours(*words, ok=False), qemu(*words, ok=False)
    assert (mine.code, mine.out, mine.err) == (theirs.code, theirs.out, theirs.err)
    return mine


@pytest.mark.parametrize(
    "words",
    [
        ["info"],
        ["info", "--output=json"],
        ["info", "-f", "raw"],
        ["map"],
        ["map", "--output=json"],
        ["measure", "-O", "qcow2"],
        ["resize", "-f", "raw", "--shrink"],
    ],
)
def test_a_drive_with_a_medium_as_with_qemu(drive, ours, qemu, words):
    more = ["2M"] if words[0] == "resize" else []
    result = same(ours, qemu, *words, drive(DISC_OK), *more)
    if words == ["info"]:
        assert "protocol type: host_cdrom" in result.out


@pytest.mark.parametrize(
    "spelling",
    [
        "{}",
        "host_cdrom:{}",
        'json:{{"driver":"host_cdrom","filename":"{}"}}',
        'json:{{"driver":"raw","file.driver":"host_cdrom","file.filename":"{}"}}',
        'json:{{"driver":"raw","file":{{"filename":"{}"}}}}',
    ],
)
def test_spellings(drive, ours, qemu, spelling):
    result = same(ours, qemu, "info", spelling.format(drive(DISC_OK)))
    assert "host_cdrom" in result.out


def test_a_disc_is_copied(drive, ours, cairn):
    for program in (ours, cairn):
        Path("copy.raw").unlink(missing_ok=True)
        program("convert", "-O", "raw", drive(DISC_OK), "copy.raw")
        assert Path("copy.raw").read_bytes() == Path("back").read_bytes()


@pytest.mark.parametrize("state", [NO_INFO, NO_DISC, TRAY_OPEN, NOT_READY])
def test_an_empty_drive_under_the_name_of_qemu(drive, ours, qemu, state):
    device = drive(state)
    same(ours, qemu, "info", device)
    same(ours, qemu, "info", "--output=json", device)
    mine, theirs = (
        program("create", "-f", "raw", device, "1M", ok=False) for program in (ours, qemu)
    )
    assert (mine.code, mine.out) == (theirs.code, theirs.out) and mine.err.startswith(theirs.err)
    for words in (
        ["convert", "-O", "raw", device, "copy.raw"],
        ["map", device],
        ["dd", f"if={device}", "of=x.raw", "count=1"],
        ["resize", "-f", "raw", device, "9M"],
        ["convert", "-n", "-f", "raw", "-O", "raw", "back", device],
    ):
        mine, theirs = ours(*words, ok=False), qemu(*words, ok=False)
        assert mine.code == theirs.code == 1
        assert "No medium found" in mine.err
    assert ours("compare", device, "back", ok=False).code > 1


def test_an_empty_drive_under_our_name(drive, cairn):
    device = drive(NO_DISC)
    looked = cairn("info", device)
    assert "virtual size: 0 B" in looked.out and f"no medium in the drive '{device}'" in looked.err
    for words in (
        ["convert", device, "copy.raw"],
        ["map", device],
        ["compare", device, "back"],
        ["hash", device],
    ):
        refused = cairn(*words, ok=False)
        assert refused.code != 0 and f"Could not open '{device}': No medium found" in refused.err
    assert not os.path.exists("copy.raw")
    drive(TRAY_OPEN)
    assert "The tray of the drive is open." in cairn("map", device, ok=False).err
    drive(NOT_READY)
    assert "not ready" in cairn("map", device, ok=False).err


def test_drivers_want_what_they_are_for(device, ours, qemu):
    for words in (
        ["info", "host_cdrom:back"],
        ["info", "host_device:back"],
        ["info", f"file:{device}"],
        ["info", "host_cdrom:/missing"],
        ["info", "host_cdrom:"],
        ["info", "--image-opts", "driver=host_cdrom"],
        ["info", "--image-opts", "driver=host_floppy"],
        ["info", "--image-opts", f"driver=host_cdrom,filename={device},exclusive=on"],
        ["info", "--image-opts", f"driver=host_cdrom,filename={device},aio=native"],
        ["info", "host_floppy:/dev/fd0"],
        ["create", "-f", "raw", "host_device:missing", "1M"],
        ["create", "-f", "raw", "host_cdrom:missing", "1M"],
        ["create", "-f", "raw", "/dev/cdrom9", "1M"],
        ["create", "-f", "raw", "-o", "nocow=on", device, "1M"],
        ["create", "-f", "raw", "-o", "preallocation=full", device, "1M"],
        ["create", "-f", "raw", "-o", "help", device],
    ):
        same(ours, qemu, *words)


def test_creation_clears_the_first_sector(device, ours, qemu):
    """So that no old header is found."""
    for program in (qemu, ours):
        subprocess.run(
            ["dd", "if=/dev/urandom", f"of={device}", "bs=1k", "count=1", "conv=fsync"],
            check=True,
            capture_output=True,
        )
        program("create", "-f", "raw", device, "1M")
        with open(device, "rb") as disk:
            assert disk.read(512) == bytes(512) and disk.read(512) != bytes(512)


@pytest.mark.parametrize(
    "name, says",
    [
        ("\\\\.\\PhysicalDrive0", "a name of Windows: on Linux disks are called /dev/sdX"),
        ("\\\\.\\d:", "a name of Windows"),
        ("d:", "CD-ROM drives are called /dev/sr0"),
        ("d:\\disk.img", "a path of Windows"),
        ("/dev/rdisk9", "a name of macOS"),
        ("/dev/cdrom9", "CD-ROM drives are called /dev/sr0"),
        ("/dev/fd9", "no floppy controller"),
    ],
)
def test_names_of_other_systems(folder, cairn, ours, qemu, name, says):
    sparse_disk("disk.raw", 65536)
    for words in (
        ["info", name],
        ["create", "-f", "raw", name, "1M"],
        ["convert", "disk.raw", name],
    ):
        refused = cairn(*words, ok=False)
        assert refused.code == 1 and says in refused.err, (words, refused.err)
    assert os.listdir() == ["disk.raw"] and not os.path.exists(name)
    same(ours, qemu, "info", name)


def test_a_file_may_have_a_strange_name(folder, cairn):
    name = "\\\\.\\PhysicalDrive0"
    sparse_disk(name, 65536)
    assert "virtual size: 64 KiB" in cairn("info", name).out
    sparse_disk("d:x", 65536)
    assert "virtual size: 64 KiB" in cairn("info", "./d:x").out


def test_devices_that_are_no_disks(folder, cairn, ours, qemu):
    os.mkfifo("pipe")
    os.mknod("sg", 0o600 | stat.S_IFCHR, os.makedev(21, 0))
    os.mknod("gone", 0o600 | stat.S_IFBLK, os.makedev(11, 200))
    # QEMU waits for somebody to write into the pipe.
    assert "requires 'pipe' to be a regular file" in ours("info", "pipe", ok=False).err
    for name in ("gone", "/dev/zero", "/dev/null"):
        same(ours, qemu, "info", name)
    for program in (cairn, ours):
        refused = program("info", "sg", ok=False)
        assert (
            refused.code == 1
            and "passes SCSI commands on, which is not supported" in refused.err
            and "lsscsi" in refused.err
        )


@pytest.fixture
def mounted(loop):
    with open("fs", "wb") as out:
        out.truncate(4 << 20)
    device = loop("fs")
    subprocess.run(["/sbin/mkfs.ext4", "-q", device], check=True)
    os.mkdir("mnt")
    subprocess.run(["mount", device, "mnt"], check=True)
    yield device
    subprocess.run(["umount", "mnt"], check=True)


def test_a_mounted_device_is_not_written(mounted, cairn, ours, qemu):
    with open("new.raw", "wb") as out:
        out.truncate(65536)
    before = Path("fs").read_bytes()
    for words in (
        ["convert", "-n", "-f", "raw", "-O", "raw", "new.raw", mounted],
        ["create", "-f", "raw", mounted, "1M"],
        ["create", "-f", "qcow2", mounted, "1M"],
        ["bench", "-w", "-f", "raw", "-c", "1", mounted],
        ["io", "-f", "raw", "-c", "write 0 512", mounted],
        ["nbd", "-f", "raw", "-k", f"{os.getcwd()}/s", mounted],
    ):
        refused = cairn(*words, ok=False)
        assert (
            refused.code == 1
            and f"Could not open '{mounted}': Device or resource busy" in refused.err
        )
        assert (
            f"It is mounted on '{os.getcwd()}/mnt': unmount it first" in refused.err
            and "file.exclusive=off" in refused.err
        )
    os.sync()
    assert Path("fs").read_bytes()[65536:] == before[65536:]
    assert "protocol type: host_device" in cairn("info", mounted).out
    words = f"driver=raw,file.driver=host_device,file.filename={mounted},file.exclusive="
    assert "busy" in cairn("info", "--image-opts", words + "on", ok=False).err
    # Asked for, and under the name of QEMU, it is done.
    cairn("bench", "-w", "-c", "1", "-s", "512", "--pattern", "0", "--image-opts", words + "off")
    for program in (ours, qemu):
        program("bench", "-w", "-c", "1", "-s", "512", "-f", "raw", mounted)


def test_a_disk_that_we_write_is_not_mounted(loop, folder, cairn):
    with open("fs", "wb") as out:
        out.truncate(4 << 20)
    device = loop("fs")
    subprocess.run(["/sbin/mkfs.ext4", "-q", device], check=True)
    os.mkdir("mnt")
    job = subprocess.Popen(
        [CAIRN, "io", "-f", "raw", device], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        job.stdin.write("length\n")
        job.stdin.flush()
        line_with(job, "4 MiB")
        assert subprocess.run(["mount", device, "mnt"], capture_output=True).returncode != 0
        assert "4 MiB" in cairn("info", "-f", "raw", device).out
    finally:
        job.communicate("", timeout=30)
    subprocess.run(["mount", device, "mnt"], check=True)
    subprocess.run(["umount", "mnt"], check=True)


@pytest.mark.parametrize("cache", ["writeback", "none"])
@pytest.mark.parametrize("block", [512, 4096])
def test_zeroes_and_discards_of_any_range(loop, folder, cairn, block, cache):
    """What is left is what was asked for, whatever the device's unit is."""
    before = os.urandom(1 << 20)
    Path("back").write_bytes(before)
    device = loop("back", "-b", str(block))
    zeroed = [
        ("write -z", 0, 512),
        ("write -z", 5000, 3000),
        ("write -z", 65536, 131072),
        ("write -z -u", 300000, 70001),
        ("write -z -u", 1044480, 4096),
        ("write -z", 524287, 2),
        ("write -z -n -u", 409600, 8192),
    ]
    words = [word for command, at, count in zeroed for word in ("-c", f"{command} {at} {count}")]
    cairn(
        "io",
        "-f",
        "raw",
        "-t",
        cache,
        *words,
        "-c",
        "discard 700000 50000",
        "-c",
        "discard 819200 4096",
        "-c",
        "flush",
        device,
    )
    expected = bytearray(before)
    for _, at, count in zeroed:
        expected[at : at + count] = bytes(count)
    with open(device, "rb") as disk:
        after = disk.read()
    assert len(after) == len(expected)
    assert after[:700000] == expected[:700000] and after[823296:] == expected[823296:]
    for at in range(700000, 823296):
        # What was discarded may be anything; what lies beside it is kept.
        if not (700000 <= at < 750000 or 819200 <= at < 823296):
            assert after[at] == expected[at], at


@pytest.mark.parametrize("cache", ["writeback", "none"])
def test_a_device_that_loses_its_end_is_no_zeroes(loop, folder, cairn, cache):
    Path("back").write_bytes(os.urandom(1 << 20))
    device = loop("back")
    job = subprocess.Popen(
        [CAIRN, "io", "-r", "-f", "raw", "-t", cache, device],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    job.stdin.write("length\n")
    job.stdin.flush()
    line_with(job, "1 MiB")
    os.truncate("back", 65536)
    subprocess.run(["losetup", "-c", device], check=True)
    out, _ = job.communicate("read 0 64k\nread 128k 64k\nread 32k 64k\n", timeout=30)
    assert (
        out.count("read failed: Input/output error") == 2
        and "read 65536/65536 bytes at offset 0" in out
    ), out


def test_a_device_that_grew_is_as_large_as_when_it_is_opened(loop, folder, cairn):
    Path("back").write_bytes(os.urandom(65536))
    device = loop("back")
    os.truncate("back", 1 << 20)
    assert "virtual size: 64 KiB" in cairn("info", device).out
    subprocess.run(["losetup", "-c", device], check=True)
    assert "virtual size: 1 MiB" in cairn("info", device).out


def test_devices_that_cannot_be_written(loop, folder, cairn, ours, qemu):
    Path("back").write_bytes(bytes(65536))
    device = loop("back", "-r")
    for words in (
        ["create", "-f", "raw", device, "4k"],
        ["create", "-f", "qcow2", device, "4k"],
        ["resize", "-f", "raw", device, "64k"],
        ["convert", "-n", "-f", "raw", "-O", "raw", "back", device],
    ):
        same(ours, qemu, *words)
        assert "The device is not writable: Permission denied" in cairn(*words, ok=False).err


def test_resizing_devices(device, ours, qemu):
    for words in (["8M"], ["--shrink", "1M"], ["4M"], ["--preallocation=full", "5M"]):
        same(ours, qemu, "resize", "-f", "raw", device, *words)
