"""A folder as a FAT disk that is written: what a guest does is done to the folder, whole or not at all."""
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path

import pytest

from conftest import CAIRN, call
from linux_guest import boot
from nbd_support import QEMU_NBD, Server

pytestmark = pytest.mark.any_engine

VOLUME = 32256
QEMU_IO = CAIRN.parent / "compat" / "qemu-io"


class Guest:
    """Somebody who changes the disk with mtools, and gives it back."""

    def __init__(self, cairn, source="fat:rw:d", offset=VOLUME):
        self.cairn, self.source, self.offset = cairn, source, offset
        self.take()

    def take(self):
        self.cairn(
            "convert",
            "--overwrite",
            "-f",
            "raw",
            "-O",
            "raw",
            self.source.replace("rw:", ""),
            "disk.raw",
        )

    def do(self, tool, *words):
        subprocess.run(
            [tool, "-i", f"disk.raw@@{self.offset}", *words],
            check=True,
            capture_output=True,
            timeout=60,
            env=os.environ | {"LC_ALL": "C.UTF-8", "MTOOLS_SKIP_CHECK": "1"},
        )

    def give(self, ok=True, program=None, before=()):
        words = ["convert", "-n", "-f", "raw", "-O", "raw", "disk.raw", self.source]
        done = (
            call(*before, program or CAIRN, *words, ok=ok)
            if before
            else call(program or CAIRN, *words, ok=ok)
        )
        assert not Path("d/.cairn-vvfat").exists() or before
        return done

    def sees(self, target="seen"):
        shutil.rmtree(target, ignore_errors=True)
        os.mkdir(target)
        self.do("mcopy", "-s", "-n", "-p", "::/*", target)
        return as_host(content(target))


def as_host(tree):
    """mren and mmove store short names in capitals; what had none before keeps its case."""

    def part(name):
        return name.lower() if name.isupper() else name

    return {"/".join(map(part, name.split("/"))): data for name, data in tree.items()}


def folded(tree):
    return {name.lower(): data for name, data in tree.items()}


def content(folder):
    """Every file and folder below FOLDER, with what it holds."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_dir():
            found[name] = None
        else:
            found[name] = path.read_bytes() if path.is_file() else "special"
    return found


def make(tree):
    for name, data in tree.items():
        path = Path("d") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if data is None else path.write_bytes(data)


TREE = {
    "a.txt": b"first\n",
    "b.txt": b"second\n",
    "empty": b"",
    "big.bin": random.Random(1).randbytes(100_001),
    "sub/one.txt": b"1",
    "sub/deep/A long name.html": b"x" * 8192,
    "sub/deep/two": b"2",
    "other": None,
}
ACTIONS = {
    "new file": [("mcopy", "new", "::/new file.txt")],
    "new empty file": [("mcopy", "none", "::/nothing")],
    "new in a folder": [("mcopy", "new", "::/sub/deep/n")],
    "new folder": [
        ("mmd", "::/fresh"),
        ("mmd", "::/fresh/inner"),
        ("mcopy", "new", "::/fresh/inner/n"),
    ],
    "replace": [("mcopy", "-o", "new", "::/a.txt")],
    "shorten": [("mcopy", "-o", "new", "::/big.bin")],
    "empty": [("mcopy", "-o", "none", "::/big.bin")],
    "lengthen": [("mcopy", "-o", "long", "::/sub/one.txt")],
    "fill an empty one": [("mcopy", "-o", "long", "::/empty")],
    "remove": [("mdel", "::/a.txt"), ("mdel", "::/empty")],
    "remove folders": [("mdeltree", "::/sub"), ("mrd", "::/other")],
    "rename": [("mren", "::/a.txt", "::/A rather long name.text")],
    "case": [("mren", "::/a.txt", "::/x"), ("mren", "::/x", "::/A.Txt")],
    "rename a folder": [("mren", "::/sub", "::/renamed")],
    "move": [("mmove", "::/a.txt", "::/sub/deep")],
    "move a folder": [("mmove", "::/sub", "::/other")],
    "turn around": [("mmove", "::/sub/deep", "::/"), ("mmove", "::/sub", "::/deep")],
    "swap": [
        ("mren", "::/a.txt", "::/x"),
        ("mren", "::/b.txt", "::/a.txt"),
        ("mren", "::/x", "::/b.txt"),
    ],
    "swap and change": [
        ("mren", "::/a.txt", "::/x"),
        ("mren", "::/b.txt", "::/a.txt"),
        ("mren", "::/x", "::/b.txt"),
        ("mcopy", "-o", "long", "::/b.txt"),
    ],
    "into a place that was given up": [
        ("mdel", "::/a.txt"),
        ("mmove", "::/sub/one.txt", "::/"),
        ("mren", "::/one.txt", "::/a.txt"),
    ],
    "file for folder": [("mrd", "::/other"), ("mcopy", "new", "::/other")],
    "folder for file": [
        ("mdel", "::/a.txt"),
        ("mmd", "::/a.txt"),
        ("mcopy", "new", "::/a.txt/inside"),
    ],
    "names": [
        ("mcopy", "new", "::/ünïcode 日本語.txt"),
        ("mcopy", "new", "::/.hidden"),
        ("mcopy", "new", "::/a.b.c.d"),
    ],
}


@pytest.fixture
def host(folder):
    make(TREE)
    Path("new").write_bytes(b"something new\n")
    Path("none").write_bytes(b"")
    Path("long").write_bytes(random.Random(2).randbytes(50_000))
    return folder


@pytest.mark.parametrize("action", ACTIONS)
def test_actions(cairn, host, action):
    guest = Guest(cairn)
    for words in ACTIONS[action]:
        guest.do(*words)
    guest.give()
    assert content("d") == guest.sees() != TREE
    # The folder gives a disk with the same content again.
    guest.take()
    assert guest.sees() == content("d")


@pytest.mark.parametrize(
    "kind,offset", [("12:", VOLUME), ("32:", VOLUME), ("floppy:", 0), ("floppy:12:", 0)]
)
def test_kinds_of_disk(cairn, host, kind, offset):
    guest = Guest(cairn, f"fat:{kind}rw:d", offset)
    for name in ("new file", "remove", "move a folder", "shorten"):
        for words in ACTIONS[name]:
            guest.do(*words)
    guest.give()
    assert content("d") == guest.sees()


def test_nothing_changes_without_changes(cairn, host):
    guest = Guest(cairn)
    os.utime("d/sub", (5e8, 5e8))

    def states():
        return {
            path: (found.st_ino, found.st_mode, found.st_mtime_ns)
            for path in Path("d").rglob("*")
            for found in [os.stat(path)]
        }

    before = states()
    guest.give()
    assert states() == before


def test_mode_and_times_stay(cairn, host):
    os.chmod("d/a.txt", 0o4640)
    os.utime("d/a.txt", (1e9, 1e9))
    os.utime("d/b.txt", (1e9, 1e9))
    inode = os.stat("d/b.txt").st_ino
    guest = Guest(cairn)
    os.utime("new", (1.2e9, 1.2e9))
    guest.do("mcopy", "-o", "-m", "new", "::/a.txt")
    guest.do("mren", "::/b.txt", "::/c.txt")
    guest.give()
    assert os.stat("d/a.txt").st_mode & 0o7777 == 0o640  # without the right of its owner
    assert (os.stat("d/a.txt").st_mtime, os.stat("d/c.txt").st_mtime) == (1.2e9, 1e9)
    assert os.stat("d/c.txt").st_ino == inode


class Mounted:
    """The disk as a file, which is written without a copy; every flush is a step."""

    def __init__(self, folder):
        Path("m").touch()
        self.log = open("mount.log", "w+")
        self.job = subprocess.Popen(
            [CAIRN, "mount", "-w", "fat:rw:d", "m"], stdout=self.log, stderr=self.log, cwd=folder
        )
        deadline = time.monotonic() + 20
        while os.stat("m").st_size == 0:
            assert time.monotonic() < deadline and self.job.poll() is None, self.text()
            time.sleep(0.02)

    def text(self):
        return Path("mount.log").read_text()

    def do(self, tool, *words):
        subprocess.run(
            [tool, "-i", f"m@@{VOLUME}", *words],
            check=True,
            capture_output=True,
            timeout=60,
            env=os.environ | {"LC_ALL": "C.UTF-8", "MTOOLS_SKIP_CHECK": "1"},
        )

    def flush(self):
        with open("m", "r+b") as disk:
            os.fsync(disk.fileno())

    def end(self):
        subprocess.run(["fusermount3", "-u", "m"], check=True)
        return self.job.wait(timeout=30)


def test_one_step_after_another(host):
    """What a guest reads stays right while the files behind it move; steps build on each other."""
    mounted = Mounted(host)
    try:
        for name in ("rename a folder", "swap and change", "new folder", "lengthen", "remove"):
            for words in ACTIONS[name]:
                if name == "lengthen":
                    words = tuple(word.replace("sub", "renamed") for word in words)
                mounted.do(*words)
            mounted.flush()
            shutil.rmtree("seen", ignore_errors=True)
            os.mkdir("seen")
            mounted.do("mcopy", "-s", "-n", "::/*", "seen")
            assert content("d") == as_host(content("seen")), name
    finally:
        code = mounted.end()
    assert code == 0, mounted.text()


def test_guest_that_never_flushes(host):
    mounted = Mounted(host)
    try:
        with open("m", "r+b", buffering=0) as disk:  # keeps the mount from being flushed by a close
            mounted.do("mcopy", "new", "::/soon")
            deadline = time.monotonic() + 20
            while not Path("d/soon").exists():
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert disk.read(1)
    finally:
        assert mounted.end() == 0


@pytest.mark.parametrize("seed", range(4))
def test_random_work(cairn, folder, seed):
    """A tree of files under random changes, in steps; after each the folder is what the guest sees."""
    source = random.Random(seed)
    make(
        {f"f{i}.dat": source.randbytes(source.choice([0, 1, 8192, 8193, 40000])) for i in range(8)}
        | {"x/y/z": b"z", "w": None}
    )
    guest = Guest(cairn, offset=VOLUME)
    for step in range(6):
        for _ in range(source.randrange(1, 8)):
            seen = guest.sees()
            files = [name for name, data in seen.items() if data is not None]
            folders = ["", *(name for name, data in seen.items() if data is None)]
            target = "::/" + source.choice(folders)
            fresh = f"{target}/{source.choice(['n', 'Long name ', 'ü'])}{source.randrange(10**6)}"
            what = source.randrange(6)
            if what == 0 or not files:
                Path("blob").write_bytes(source.randbytes(source.choice([0, 5, 8192, 30000])))
                guest.do("mcopy", "blob", fresh)
            elif what == 1:
                Path("blob").write_bytes(source.randbytes(source.choice([0, 5, 8192, 30000])))
                guest.do("mcopy", "-o", "blob", "::/" + source.choice(files))
            elif what == 2:
                guest.do("mdel", "::/" + source.choice(files))
            elif what == 3:
                guest.do("mmd", fresh)
            elif what == 4:
                guest.do(
                    "mren",
                    "::/" + source.choice(files + folders[1:]),
                    f"r{source.randrange(10**6)}",
                )
            else:
                moved = source.choice(files + folders[1:])
                taken = f"{target[3:]}/{Path(moved).name}".lstrip("/").lower() in folded(seen)
                if not (target + "/").startswith(f"::/{moved}/") and not taken:
                    guest.do("mmove", "::/" + moved, target)
        guest.give()
        assert folded(content("d")) == folded(guest.sees()), step


def refused(guest, message, keep=None):
    before = keep or content("d")
    done = guest.give(ok=False)
    assert done.code == 1 and message in done.err, done.err
    assert content("d") == before


def test_write_protected(cairn, host):
    os.chmod("d/a.txt", 0o444)
    guest = Guest(cairn)
    guest.do("mattrib", "-r", "::/a.txt")
    guest.do("mcopy", "-o", "long", "::/a.txt")
    refused(guest, "write-protected")
    guest.take()
    guest.do("mdel", "::/a.txt")
    refused(guest, "d/a.txt: the file is write-protected")
    # Where its bytes lie nothing is written at all.
    place = Path("disk.raw").read_bytes().find(b"first\n")
    done = cairn("io", "-f", "raw", "-c", f"write -P 1 {place} 512", "fat:rw:d", ok=False)
    assert "Tried to write to write-protected file d/a.txt" in done.err
    assert "Operation not permitted" in done.out + done.err


@pytest.mark.parametrize("place", ["0 512", "1024 512", f"{VOLUME} 512"])
def test_structure_of_the_disk(cairn, host, place):
    done = cairn("io", "-f", "raw", "-c", f"write -P 7 {place}", "fat:rw:d", ok=False)
    assert "Operation not permitted" in done.out + done.err


def test_mark_of_a_mounted_volume(cairn, host):
    Guest(cairn)
    boot_sector = bytearray(Path("disk.raw").read_bytes()[VOLUME : VOLUME + 512])
    boot_sector[37] = 1
    Path("sector").write_bytes(boot_sector)
    cairn(
        "io",
        "-f",
        "raw",
        "-c",
        f"write -s sector {VOLUME} 512",
        "-c",
        f"read -v {VOLUME} 512",
        "fat:rw:d",
    )


def test_special_files_and_links(cairn, host):
    os.mkfifo("d/fifo")
    os.symlink("a.txt", "d/link")
    os.symlink("/etc/passwd", "d/out")
    os.symlink("sub", "d/folderlink")
    before = content("d")
    for action, message in [
        (("mdel", "::/fifo"), "d/fifo: it is not a file"),
        (("mcopy", "-o", "new", "::/fifo"), "d/fifo: it is not a file"),
        (("mren", "::/link", "::/renamed"), "d/link: it is a link"),
        (("mdel", "::/folderlink/one.txt"), "reached through a link"),
        (("mcopy", "new", "::/folderlink/n"), "reached through a link"),
        (("mcopy", "new", "::/out"), "d/out: a guest made it, but the host has one already"),
    ]:
        guest = Guest(cairn)
        guest.do("mattrib", "-r", "-/", "::/")
        guest.do(*action)
        refused(guest, message, before)
    guest = Guest(cairn)
    guest.do("mattrib", "-r", "::/link")
    guest.do("mdel", "::/link")
    guest.give()
    assert not Path("d/link").is_symlink() and Path("d/a.txt").read_bytes() == b"first\n"


@pytest.mark.parametrize(
    "name",
    [
        "../evil.txt",
        "a/b/c/d.txt",
        "..//////////",
        "evil:x.txt",
        "\\\\abs.txt.x",
        "nul\x00l.txt..",
        "bad*name.txt",
    ],
)
def test_names_that_lead_astray(cairn, host, name):
    """A guest may write any sixteen bits into a name."""
    plain = "plainname x"[:11].ljust(len(name), "y")[: len(name)]
    guest = Guest(cairn, "fat:floppy:rw:d", 0)
    guest.do("mcopy", "new", "::/" + plain)
    data = bytearray(Path("disk.raw").read_bytes())

    def slots(text):
        units = [ord(c) for c in text] + [0] + [0xFFFF] * 13
        return (
            struct.pack("<5H", *units[0:5]),
            struct.pack("<6H", *units[5:11]),
            struct.pack("<2H", *units[11:13]),
        )

    old, new = slots(plain), slots(name)
    at = data.find(old[0])
    assert at > 0
    for offset, part in zip((0, 13, 27), new):
        data[at + offset : at + offset + len(part)] = part
    Path("disk.raw").write_bytes(data)
    before = content("d")
    done = guest.give(ok=False)
    if name.startswith("nul"):
        assert done.code == 0  # the name ends there
        assert set(content("d")) - set(before) == {"nul"}
    else:
        assert done.code == 1 and "none that a file may have" in done.err, done.err
        assert content("d") == before
    assert sorted(os.listdir(".")) == ["d", "disk.raw", "long", "new", "none"]


def test_half_a_file_system_waits(cairn, host):
    """A cluster that belongs to nobody: a guest is in the middle of something."""
    Guest(cairn)
    before = content("d")
    script = ["-c", f"write -P 255 {VOLUME + 512 + 20000} 2", "-c", "flush"]
    done = cairn("io", "-f", "raw", *script, "fat:rw:d", ok=False)
    assert done.code == 1 and "is taken and belongs to no file" in done.err
    told = call(QEMU_IO, "-f", "raw", *script, "fat:rw:d")
    assert "lost" in told.err and content("d") == before
    cairn(
        "io",
        *script,
        "--image-opts",
        "driver=raw,file.driver=vvfat,file.dir=d,file.rw=on,file.strict=off",
    )
    # What is made whole in time counts.
    cairn("io", "-f", "raw", *script, "-c", f"write -P 0 {VOLUME + 512 + 20000} 2", "fat:rw:d")
    assert content("d") == before


def test_host_changes_too(cairn, host):
    guest = Guest(cairn)
    mounted = Mounted(host)
    try:
        Path("d/a.txt").write_bytes(b"the host was here\n")
        Path("d/sub/deep/unknown").write_bytes(b"u")
        mounted.do("mcopy", "-o", "long", "::/a.txt")
        mounted.do("mcopy", "new", "::/fine")
        mounted.flush()
        assert Path("d/a.txt").read_bytes() == b"the host was here\n"
        assert Path("d/fine").read_bytes() == b"something new\n"
        assert "d/a.txt is left as it is" in mounted.text()
        mounted.do("mdel", "::/a.txt")
        mounted.do("mdel", "::/b.txt")
        mounted.flush()
        assert Path("d/a.txt").exists() and not Path("d/b.txt").exists()
        mounted.do("mdeltree", "::/sub")
        with pytest.raises(OSError):
            mounted.flush()
        assert Path("d/sub/deep/unknown").read_bytes() == b"u" and Path("d/sub/one.txt").exists()
    finally:
        code = mounted.end()
    assert code == 1 and "but the host keeps unknown there" in mounted.text()
    assert guest.source and Path("d/sub/one.txt").exists()


def test_two_at_a_time(cairn, host):
    mounted = Mounted(host)
    try:
        done = cairn("io", "-f", "raw", "-c", "flush", "fat:rw:d", ok=False)
        assert done.code == 1 and "d is shown as a disk that can be written already" in done.err
        cairn("info", "fat:d")
    finally:
        assert mounted.end() == 0


def test_full_disk(cairn, host):
    shutil.rmtree("d")
    os.mkdir("d")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", "d"], check=True)
    try:
        make(TREE)
        guest = Guest(cairn)
        Path("huge").write_bytes(os.urandom(400_000))
        guest.do("mcopy", "huge", "::/huge")
        guest.do("mdel", "::/a.txt")
        refused(guest, "No space left on device")
    finally:
        subprocess.run(["umount", "d"], check=True)


def test_another_file_system(cairn, host):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", "d/other"], check=True)
    try:
        guest = Guest(cairn)
        guest.do("mcopy", "new", "::/other/n")
        refused(guest, "it is on another file system")
    finally:
        subprocess.run(["umount", "d/other"], check=True)


@pytest.mark.slow
def test_killed_at_every_step(cairn, host):
    """Whenever the program dies, the next one finds the folder as it was before or after."""
    guest = Guest(cairn)
    shutil.copytree("d", "before")
    for name in ("swap and change", "move a folder", "shorten", "new folder", "file for folder"):
        for words in ACTIONS[name]:
            if name != "file for folder":
                guest.do(*words)
    guest.do("mdel", "::/empty")
    after, before = guest.sees(), content("before")
    killed = 0
    for number in range(1, 40):
        shutil.rmtree("d")
        shutil.copytree("before", "d")
        done = guest.give(
            ok=False,
            before=[
                "strace",
                "-f",
                "-qq",
                "-o",
                "trace",
                "-e",
                "trace=renameat2",
                "-e",
                f"inject=renameat2:signal=KILL:when={number}",
            ],
        )
        if done.code == 0:
            break
        killed += 1
        told = cairn("io", "-f", "raw", "-c", "flush", "fat:rw:d")
        assert not Path("d/.cairn-vvfat").exists()
        assert content("d") in (before, after), number
        if content("d") == before:
            assert "was interrupted is undone" in told.err or number == 1
    assert killed > 8 and content("d") == after


SCRIPT = """busybox mount -t vfat -o noatime /dev/vda1 /mnt || { echo NO MOUNT; busybox poweroff -f; }
cd /mnt
busybox cat hello.txt > copy.txt
busybox mkdir -p made/inside
busybox dd if=/dev/zero of=made/zeroes bs=1000 count=100
echo appended >> sub/log
busybox sync
busybox mv sub moved
busybox rm gone
echo lower > "Mixed Case.Txt"
cd /
busybox umount /mnt && echo GUEST DONE
busybox poweroff -f
"""


@pytest.mark.slow
def test_linux_guest(folder):
    make({"hello.txt": b"hello\n", "sub/log": b"line\n", "gone": b"bye"})
    one = Server(
        [QEMU_NBD, "-t", "-k", folder / "s.sock", "-f", "raw", "fat:rw:d"], folder / "s.sock"
    )
    try:
        modules = ("vfat", "nls_cp437", "nls_ascii", "nls_utf8")
        console = boot(folder, SCRIPT, modules, one.uri())
        assert "GUEST DONE" in console, console
        assert one.stop() == 0
    finally:
        one.end()
    assert content("d") == {
        "hello.txt": b"hello\n",
        "copy.txt": b"hello\n",
        "made": None,
        "made/inside": None,
        "made/zeroes": bytes(100_000),
        "moved": None,
        "moved/log": b"line\nappended\n",
        "Mixed Case.Txt": b"lower\n",
    }
