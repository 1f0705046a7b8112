"""A folder as a FAT disk: as dosfstools, mtools and QEMU see it; names, links, limits, and folders that change."""
import hashlib
import os
import re
import socket
import subprocess
import time

import pytest

from conftest import CAIRN

KINDS = {"": 32256, "12:": 32256, "16:": 32256, "32:": 32256, "floppy:": 0, "floppy:12:": 0}


def tree(folder):
    (folder / "d/sub/deep").mkdir(parents=True)
    (folder / "d/hello.txt").write_text("hello\n")
    (folder / "d/empty").write_bytes(b"")
    (folder / "d/sub/data.bin").write_bytes(os.urandom(20001))
    (folder / "d/sub/deep/A long name, of a file.html").write_bytes(b"x" * 8192)
    (folder / "d/sub/deep/ünïcode 日本語.txt").write_text("names")


def disk(cairn, source, offset):
    """The volume of the disk, which fsck.fat finds good."""
    words = source.split(":")[1:-1]
    kind = "".join(
        f",file.fat-type={word}" if word.isdigit() else f",file.{word}=on" for word in words
    )
    cairn(
        "convert",
        "-O",
        "raw",
        "--image-opts",
        f"driver=raw,offset={offset},file.driver=vvfat,file.dir=d{kind}",
        "volume.raw",
        errors="replace",
    )
    done = subprocess.run(["fsck.fat", "-n", "volume.raw"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    return "volume.raw"


def unpack(volume, target):
    target.mkdir()
    subprocess.run(
        ["mcopy", "-s", "-n", "-i", volume, "::/*", target],
        check=True,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
    )


def names(volume, where="/"):
    """Short and long names, by mdir."""
    text = subprocess.run(
        ["mdir", "-i", volume, f"::{where}"],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
    ).stdout
    found = re.findall(
        r"^(\S.{7}) (.{3}) +(?:<DIR>|[\d ]+?) +\d{4}-\d\d-\d\d +\d+:\d\d *(.*)$", text, re.M
    )
    return {
        long.strip() or (a.strip() + "." + b.strip()).strip(".").lower(): a + b
        for a, b, long in found
        if a.strip(". ")
    }


@pytest.mark.parametrize("kind", KINDS)
def test_content(cairn, folder, kind):
    tree(folder)
    unpack(disk(cairn, f"fat:{kind}d", KINDS[kind]), folder / "out")
    subprocess.run(["diff", "-r", "d", "out"], check=True)


@pytest.mark.parametrize("kind", ["", "12:", "floppy:", "floppy:12:"])
def test_same_disk_as_qemu(cairn, folder, qemu, kind):
    """One file in each folder, so that QEMU's order is ours. No access is later than that which is set."""
    (folder / "d/a folder").mkdir(parents=True)
    (folder / "d/a folder/Some file.text").write_bytes(b"y" * 16384)
    moment = int(time.time()) + 60
    for name in ("d/a folder/Some file.text", "d/a folder", "d"):
        os.utime(name, (moment + 1, moment))
    qemu("convert", "-f", "raw", "-O", "raw", f"fat:{kind}d", "b.raw")
    cairn("convert", "-f", "raw", "-O", "raw", f"fat:{kind}d", "a.raw")
    subprocess.run(["cmp", "a.raw", "b.raw"], check=True)


@pytest.mark.parametrize(
    "words",
    [
        ["info", "fat:d"],
        ["info", "--output=json", "fat:12:d"],
        ["info", "-f", "vvfat", "fat:floppy:d"],
        ["info", "--image-opts", "driver=vvfat,dir=d"],
        ["map", "--output=json", "fat:d"],
        ["map", "fat:d"],
        ["info", "fat:rw:d"],
        ["resize", "fat:d", "1M"],
        ["create", "fat:d", "1M"],
        ["check", "fat:d"],
        ["info", "fat:8:d"],
        ["info", "fat:16:floppy12:12:d"],
    ],
    ids=" ".join,
)
def test_words_of_qemu(ours, qemu, folder, words):
    (folder / "d").mkdir()
    mine, theirs = ours(*words, ok=False), qemu(*words, ok=False)
    assert (mine.code, mine.out, mine.err) == (theirs.code, theirs.out, theirs.err)


REFUSED = {
    "no dir": ("driver=vvfat", "vvfat block driver requires a 'dir' option"),
    "long label": (
        "driver=vvfat,dir=d,label=twelve bytes",
        "vvfat label cannot be longer than 11 bytes",
    ),
    "type": ("driver=vvfat,dir=d,fat-type=13", "Valid FAT types are only 12, 16 and 32"),
    "unknown option": (
        "driver=vvfat,dir=d,color=red",
        "Block protocol 'vvfat' doesn't support the option 'color'",
    ),
    "missing folder": ("driver=vvfat,dir=nowhere", "Could not read directory nowhere"),
    "a file": ("driver=vvfat,dir=file", "Could not read directory file"),
    "floppy with FAT16": ("driver=vvfat,dir=d,floppy=on,fat-type=16", "too few clusters for FAT16"),
    "size of FAT16": ("driver=vvfat,dir=d,size=1G", "for FAT32 only"),
    "small FAT32": (
        "driver=vvfat,dir=d,fat-type=32,size=10M,cluster-size=512",
        "FAT32 needs 65525",
    ),
    "huge FAT32": ("driver=vvfat,dir=d,fat-type=32,size=3T", "at most 4294967295 sectors"),
    "odd clusters": ("driver=vvfat,dir=d,fat-type=32,cluster-size=3k", "power of two"),
    "file of 2 GiB": ("driver=vvfat,dir=large", "is larger than 2GB"),
    "file of 4 GiB": ("driver=vvfat,dir=huge,fat-type=32", "is larger than 4GB"),
    "does not fit": (
        "driver=vvfat,dir=full",
        "Directory does not fit in FAT16 (capacity 516.06 MB)",
    ),
    "does not fit a floppy": (
        "driver=vvfat,dir=full,floppy=on",
        "Directory does not fit in FAT12 (capacity 2.88 MB)",
    ),
    "root is full": ("driver=vvfat,dir=many", "Too many entries in root directory"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(cairn, folder, case):
    for name in ("d", "large", "huge", "full", "many"):
        (folder / name).mkdir()
    (folder / "file").write_text("")
    for name, size in (("large/f", 2**31), ("huge/f", 2**32), ("full/f", 528138240 + 1)):
        with open(name, "wb") as out:
            out.truncate(size)
    for i in range(256):
        (folder / f"many/{i}").write_bytes(b"")
    options, text = REFUSED[case]
    result = cairn("info", "--image-opts", options, ok=False)
    assert result.code == 1 and text in result.err, result.err


def test_writing_must_be_asked_for(cairn, folder):
    (folder / "d").mkdir()
    assert (
        "Image is read-only" in cairn("io", "-f", "raw", "-c", "write 0 512", "fat:d", ok=False).err
    )


def test_just_fits(cairn, folder):
    (folder / "d").mkdir()
    for i in range(254):
        (folder / f"d/{i}").write_bytes(b"")
    with open("d/f", "wb") as out:
        out.truncate(528138240)
    assert cairn("info", "--output=json", "fat:d").json()["virtual-size"] == 528482304


def test_large_folder(cairn, folder):
    """70,000 slots are too many for FAT; 60,000 lie in one folder, and FAT32 grows with what there is."""
    (folder / "d/many").mkdir(parents=True)
    for i in range(3000):
        (folder / f"d/many/{i:05}{'n' * 110}").write_bytes(b"")
    assert len(names(disk(cairn, "fat:d", 32256), "/many")) == 3000
    with open("d/big", "wb") as out:
        out.truncate(2**32 - 1)
    info = cairn("info", "--output=json", "fat:32:d").json()
    assert 2**32 < info["virtual-size"] < 6 * 2**30
    for i in range(6600):
        (folder / f"d/many/{i:05}{'n' * 110}").write_bytes(b"")
    assert "65536 slots" in cairn("info", "fat:32:d", ok=False).err


SHORT = {
    "hello.txt": "HELLO   TXT",
    "A long file name.data": "ALONGF~1DAT",
    ".bashrc": "BASHRC~1   ",
    "a.b.c": "A~1     C  ",
    "verylongextension.htm": "VERYLO~1HTM",
    "verylongextension.html": "VERYLO~2HTM",
    "plus+equal=semi;comma,[x].t+t": "PLUSEQ~1TT ",
    "été.txt": "T~1     TXT",
    "ﬁle": "LE~1       ",
    "CON": "CON        ",
    "日本語.txt": "TXT~1      ",
}


def test_short_names(cairn, folder):
    (folder / "d").mkdir()
    for name in SHORT:
        (folder / "d" / name).write_text(name)
    assert names(disk(cairn, "fat:d", 32256)) == {
        name if name != "CON" else "CON": short for name, short in SHORT.items()
    }


def test_names_of_fat(cairn, folder):
    """Names that differ in case, that FAT forbids, that are no UTF-8, and the longest ones."""
    (folder / "d").mkdir()
    made = ["File.txt", "file.TXT", "a:b?", "dot.", "space ", "\x01", "x" * 255, "语" * 85, "😀.txt"]
    for name in made:
        (folder / "d" / name).write_text(name)
    with open(b"d/bad\xff.txt", "w") as out:
        out.write("bad")
    result = cairn("info", "fat:d", errors="replace")
    assert (
        "no difference between upper and lower case" in result.err
        and "invalid UTF-8 name" in result.err
    )
    unpack(disk(cairn, "fat:d", 32256), folder / "out")
    shown = {path.read_text(): path.name for path in (folder / "out").iterdir()}
    assert len(shown) == len(made) + 1
    assert shown["File.txt"] == "File.txt" and shown["file.TXT"].startswith("file~1")
    assert shown["语" * 85] == "语" * 85 and shown["x" * 255] == "x" * 255


def test_links_and_special_files(cairn, folder):
    """Nothing outside is shown, nothing blocks."""
    (folder / "secret").write_text("secret")
    (folder / "d/sub").mkdir(parents=True)
    (folder / "d/file").write_text("inside")
    os.symlink("file", "d/good")
    os.symlink("../file", "d/sub/up")
    os.symlink("sub", "d/tree")
    for name, target in (
        ("out", "../secret"),
        ("absolute", str(folder / "d/file")),
        ("dangling", "nothing"),
        ("self", "self"),
        ("sub/loop", ".."),
        ("proc", "/proc/self/root"),
    ):
        os.symlink(target, f"d/{name}")
    os.mkfifo("d/fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("d/socket")
        result = cairn("info", "fat:d", timeout=20)
    assert result.err.count("is left out") >= 6
    unpack(disk(cairn, "fat:d", 32256), folder / "out")
    assert sorted(os.listdir("out")) == ["fifo", "file", "good", "socket", "sub", "tree"]
    assert (
        (folder / "out/good").read_text()
        == (folder / "out/sub/up").read_text()
        == (folder / "out/tree/up").read_text()
        == "inside"
    )
    assert (
        os.path.getsize("out/fifo") == 0
        and b"secret" not in (folder / "volume.raw").read_bytes()[: 2**21]
    )


@pytest.mark.parametrize("change", ["truncated", "gone", "link", "fifo", "grown"])
def test_changes_while_open(cairn, folder, change):
    """What is gone reads as zeroes; what was put in its place and leads outside is not read."""
    (folder / "d").mkdir()
    file = folder / "d/file"
    file.write_bytes(b"A" * 8192)
    (folder / "secret").write_bytes(b"S" * 8192)
    with subprocess.Popen(
        [CAIRN, "serve", "-r", "-p", "0", "-f", "raw", "fat:d"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        uri = server.stdout.readline().split()[-1]
        if change == "truncated":
            os.truncate(file, 512)
        elif change == "grown":
            file.write_bytes(b"A" * 20000)
        else:
            file.unlink()
            if change == "link":
                os.symlink(folder / "secret", file)
            elif change == "fifo":
                os.mkfifo(file)
        data = (568 + 32) * 512
        kept = {"truncated": 512, "grown": 8192}.get(change, 0)
        commands = [f"read -P 0 {data + kept} {16384 - kept}"] + (
            [f"read -P 0x41 {data} {kept}"] if kept else []
        )
        done = cairn(
            "io",
            "-r",
            "-f",
            "raw",
            *[word for command in commands for word in ("-c", command)],
            uri,
            timeout=20,
        )
        server.terminate()
        errors = server.communicate(timeout=20)[1]
    assert "verification failed" not in done.out and done.out.count("bytes at offset") == len(
        commands
    )
    assert "d/file" in errors


def test_stable(cairn, folder):
    """The same folder gives the same disk, by whatever requests it is read."""
    tree(folder)
    digests = set()
    for words in (["-W"], ["-m", "1"], ["-S", "0"]):
        cairn("convert", "--overwrite", *words, "-f", "raw", "-O", "raw", "fat:floppy:d", "o.raw")
        digests.add(hashlib.sha256((folder / "o.raw").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_dates(cairn, folder):
    (folder / "d").mkdir()
    for name, moment in (("old", 0), ("now", 1_700_000_000), ("late", 5_000_000_000)):
        (folder / "d" / name).write_text("")
        os.utime(f"d/{name}", (moment, moment))
    volume = disk(cairn, "fat:d", 32256)
    text = subprocess.run(
        ["mdir", "-i", volume, "::/"], check=True, capture_output=True, text=True
    ).stdout
    day = time.strftime("%Y-%m-%d", time.localtime(1_700_000_000))
    assert (
        re.search(r"OLD .* 1980-01-01", text)
        and re.search(rf"NOW .* {day}", text)
        and re.search(r"LATE .* 2107-12-31", text)
    )
