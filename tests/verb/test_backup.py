"""cairn backup and restore: directories of full and incremental backups of images."""
import hashlib
import json
import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from conftest import CAIRN, small_file_system, sparse_disk, wait_until_free
from qmp import wait_for


@pytest.fixture
def disk(folder, cairn):
    sparse_disk("a.raw", 8 << 20)
    cairn("convert", "-f", "raw", "a.raw", "a.qcow2")
    return folder


def manifest():
    with open("b/manifest.json", encoding="utf-8") as file:
        return json.load(file)


def back_up(cairn, *words):
    """Adds a backup to b and keeps the disk that it must have as N.raw."""
    told = cairn("backup", "--output=json", *words, "b").json()
    return told["backup"] | {"reason": told.get("reason", "")}


def keep(image, number):
    subprocess.run(["qemu-img", "convert", "-O", "raw", image, f"{number}.raw"], check=True)


def bitmaps(cairn, image):
    listed = cairn("bitmap", "--list", "--output=json", image).json()["bitmaps"]
    return [one["name"] for one in listed]


def same(number):
    """The file of a backup shows, to qemu-img, the disk that was kept."""
    subprocess.run(
        ["qemu-img", "compare", "-q", "-F", "raw", f"b/{number:06}.qcow2", f"{number}.raw"],
        check=True,
    )


def test_a_chain_by_bitmaps(disk, cairn, qemu, qemu_io):
    first = back_up(cairn, "a.qcow2")
    keep("a.qcow2", 1)
    assert (first["kind"], first["parent"]) == ("full", None)
    assert bitmaps(cairn, "a.qcow2") == [first["bitmap"]]
    qemu_io("a.qcow2", "write -P 7 1M 100k", "write -z 3M 64k", "discard 5M 1M")
    second = back_up(cairn, "a.qcow2")
    keep("a.qcow2", 2)
    assert (second["kind"], second["method"], second["parent"]) == ("incremental", "bitmap", 1)
    assert second["bytes"] < first["bytes"] / 2
    qemu("resize", "-q", "a.qcow2", "12M")
    cairn("io", "-c", "write -P 9 11M 512", "a.qcow2")
    third = back_up(cairn, "-c", "a.qcow2")
    keep("a.qcow2", 3)
    assert third["method"] == "bitmap" and bitmaps(cairn, "a.qcow2") == [third["bitmap"]]
    for number in (1, 2, 3):
        same(number)
        with open(f"b/{number:06}.qcow2", "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
        assert manifest()["backups"][number - 1]["sha256"] == digest
        cairn("restore", "--verify", "--at", str(number), "b", f"r{number}.vdi")
        qemu("compare", "-q", f"r{number}.vdi", f"{number}.raw")
    assert qemu("info", "--output=json", "b/000003.qcow2").json()["backing-filename"] == (
        "000002.qcow2"
    )
    assert "are as they were written" in cairn("backup", "--verify", "b").out
    os.rename("b", "c")
    os.makedirs("other")
    os.rename("c", "other/b")
    cairn("restore", "other/b", "r.raw")
    qemu("compare", "-q", "-f", "raw", "r.raw", "3.raw")
    told = cairn("restore", "other/b", "r.raw", ok=False)
    assert told.code == 1 and "r.raw" in told.err
    cairn("restore", "--overwrite", "--at", "1", "other/b", "r.raw")
    qemu("compare", "-q", "-f", "raw", "r.raw", "1.raw")


def test_restore_to_a_pipe(disk, cairn):
    """The disk of any backup goes to standard output, and nothing else does."""
    back_up(cairn, "a.qcow2")
    keep("a.qcow2", 1)
    cairn("io", "-c", "write -P 7 1M 64k", "a.qcow2")
    back_up(cairn, "a.qcow2")
    keep("a.qcow2", 2)
    for number in (2, 1):
        done = subprocess.run(
            [CAIRN, "restore", "--at", str(number), "b", "-"], capture_output=True, check=True
        )
        with open(f"{number}.raw", "rb") as file:
            assert done.stdout == file.read()
        assert f"backup {number} ".encode() in done.stderr
    done = subprocess.run([CAIRN, "restore", "-O", "qcow2", "b", "-"], capture_output=True)
    with open("r.qcow2", "wb") as file:
        file.write(done.stdout)
    cairn("compare", "-q", "r.qcow2", "2.raw")
    for words, says in (
        (["--verify", "b", "-"], "--verify cannot be used with standard output"),
        (["-O", "vdi", "b", "-"], "standard output"),
        (["-", "r.raw"], "which `restore` cannot use"),
    ):
        told = cairn("restore", *words, ok=False)
        assert told.code == 1 and says in told.err, told.err


def test_what_was_made_smaller_and_larger(disk, cairn):
    """The part that was cut off reads as zeroes, though no bitmap says so."""
    cairn("io", "-c", "write -P 5 7M 1M", "a.qcow2")
    back_up(cairn, "a.qcow2")
    cairn("resize", "--shrink", "a.qcow2", "7M")
    cairn("resize", "a.qcow2", "8M")
    keep("a.qcow2", 2)
    assert back_up(cairn, "a.qcow2")["method"] == "bitmap"
    same(2)


def test_formats_without_bitmaps_are_compared(disk, cairn, qemu_io):
    before = os.stat("a.raw").st_mtime_ns
    back_up(cairn, "-f", "raw", "a.raw")
    assert os.stat("a.raw").st_mtime_ns == before
    qemu_io("a.raw", "write -P 7 1M 100k", "write -z 3M 64k", fmt="raw")
    keep("a.raw", 2)
    second = back_up(cairn, "-f", "raw", "a.raw")
    assert second["method"] == "compare" and second["bitmap"] is None
    assert second["bytes"] < 1 << 20 and "read and compared" in second["reason"]
    same(2)
    assert back_up(cairn, "-f", "raw", "a.raw")["bytes"] < 1 << 19
    back_up(cairn, "--no-bitmap", "a.qcow2")
    assert bitmaps(cairn, "a.qcow2") == []


def test_a_lost_record_makes_a_full_one(disk, cairn, qemu_io):
    first = back_up(cairn, "a.qcow2")
    cairn("bitmap", "--remove", "a.qcow2", first["bitmap"])
    second = back_up(cairn, "a.qcow2")
    assert second["kind"] == "full" and "no record" in second["reason"]
    # An old copy has the record of another backup.
    cairn("convert", "--bitmaps", "a.qcow2", "old.qcow2")
    back_up(cairn, "a.qcow2")
    os.rename("old.qcow2", "a.qcow2")
    assert back_up(cairn, "a.qcow2")["kind"] == "full"
    # A writer that was killed leaves the bitmap inconsistent.
    with subprocess.Popen(
        [CAIRN, "io", "a.qcow2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        writer.stdin.write("write -P 3 0 64k\nflush\n")
        writer.stdin.flush()
        assert "wrote" in writer.stdout.readline()
        writer.kill()
    wait_until_free("a.qcow2")
    keep("a.qcow2", 5)
    fifth = back_up(cairn, "a.qcow2")
    assert fifth["kind"] == "full" and "inconsistent" in fifth["reason"]
    same(5)
    keep("a.qcow2", 6)
    assert back_up(cairn, "a.qcow2")["kind"] == "incremental"
    assert back_up(cairn, "--full", "a.qcow2")["kind"] == "full"


def make_chain(cairn, qemu_io, count):
    for number in range(1, count + 1):
        qemu_io("a.qcow2", f"write -P {number} {number * 512}k 64k")
        back_up(cairn, "a.qcow2")
        keep("a.qcow2", number)


def test_old_ones_go(disk, cairn, qemu_io):
    make_chain(cairn, qemu_io, 5)
    told = cairn("backup", "--prune", "--keep", "3", "--output=json", "b").json()
    assert told["removed"] == [1, 2] and told["merged"] == 3
    assert sorted(os.listdir("b")) == [
        *(f"{number:06}.qcow2" for number in (3, 4, 5)),
        "manifest.json",
    ]
    for number in (3, 4, 5):
        same(number)
    cairn("backup", "--verify", "b")
    assert manifest()["backups"][0]["method"] == "merged"
    assert back_up(cairn, "a.qcow2")["id"] == 6
    back_up(cairn, "--full", "a.qcow2")
    told = cairn("backup", "--prune", "--keep", "1", "--output=json", "b").json()
    assert told["merged"] is None and sorted(os.listdir("b")) == ["000007.qcow2", "manifest.json"]


def sound_after_a_kill(cairn, qemu, numbers):
    """Every backup that is listed shows what was kept; nothing unfinished is in the way."""
    listed = [
        one["id"] for one in cairn("backup", "--list", "--output=json", "b").json()["backups"]
    ]
    cairn("backup", "--verify", "b")
    assert listed and listed[-1] == numbers[-1] and listed == numbers[-len(listed) :]
    for number in listed:
        cairn("restore", "--overwrite", "--at", str(number), "b", "r.raw")
        qemu("compare", "-q", "-f", "raw", "-F", "raw", "r.raw", f"{number}.raw")
    return listed


def traced_kill(call, count, *words):
    """Kills the program at its COUNT-th system call of that name; true when it came so far."""
    done = subprocess.run(
        ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
        + ["-e", f"inject={call}:signal=SIGKILL:when={count}", CAIRN, *words],
        stdout=subprocess.DEVNULL,
        check=False,
    )
    wait_until_free("a.qcow2", *Path("b").glob("*.qcow2"))
    return done.returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize("call", ["renameat", "unlinkat", "fsync"])
def test_prune_is_killed_at_each_step(disk, cairn, qemu, qemu_io, call):
    make_chain(cairn, qemu_io, 3)
    os.rename("b", "whole")
    for count in range(1, 20):
        subprocess.run(["rm", "-rf", "b"], check=True)
        subprocess.run(["cp", "-r", "whole", "b"], check=True)
        cut = traced_kill(call, count, "backup", "-q", "--prune", "--keep", "2", "b")
        sound_after_a_kill(cairn, qemu, [1, 2, 3])
        cairn("backup", "-q", "--prune", "--keep", "2", "b")
        assert sound_after_a_kill(cairn, qemu, [2, 3]) == [2, 3]
        assert len(os.listdir("b")) == 3
        if not cut:
            break
    assert not cut and count > 1


@pytest.mark.slow
@pytest.mark.parametrize("call", ["renameat", "fsync", "openat"])
def test_a_backup_is_killed_at_each_step(disk, cairn, qemu, qemu_io, call):
    """The next one has every change."""
    dice = random.Random(call)
    make_chain(cairn, qemu_io, 2)
    known = 2
    for count in range(1, 400, {"renameat": 1, "fsync": 2, "openat": 13}[call]):
        qemu_io("a.qcow2", f"write -P {count} {dice.randrange(120) * 64}k 64k")
        keep("a.qcow2", known + 1)
        cut = traced_kill(call, count, "backup", "-q", "a.qcow2", "b")
        last = manifest()["backups"][-1]["id"]
        sound_after_a_kill(cairn, qemu, list(range(1, last + 1)))
        qemu_io("a.qcow2", f"write -P {count + 1} {dice.randrange(120) * 64}k 64k")
        known = back_up(cairn, "a.qcow2")["id"]
        keep("a.qcow2", known)
        same(known)
        if not cut:
            break
    assert count > 1


def test_a_full_disk(disk, cairn):
    (disk / "large.raw").write_bytes(os.urandom(6 << 20))
    with small_file_system("b", "3m"):
        told = cairn("backup", "-f", "raw", "large.raw", "b", ok=False)
        assert told.code == 1 and "No space left" in told.err, told.err
        assert os.listdir("b") == ["manifest.json"] and manifest()["backups"] == []
        cairn("create", "-q", "-f", "raw", "small.raw", "1M")
        assert back_up(cairn, "-f", "raw", "small.raw")["id"] == 1


def test_an_interruption(disk, cairn, qemu_io):
    make_chain(cairn, qemu_io, 2)
    qemu_io("a.qcow2", "write -P 99 2M 4M")
    keep("a.qcow2", 3)
    with subprocess.Popen([CAIRN, "backup", "--limit-rate", "512k", "a.qcow2", "b"]) as process:
        wait_for(lambda: os.path.exists("b/000003.qcow2.part"))
        process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    assert sorted(os.listdir("b")) == ["000001.qcow2", "000002.qcow2", "manifest.json"]
    assert back_up(cairn, "a.qcow2")["parent"] == 2
    same(3)


def test_damage_is_found(disk, cairn, qemu_io):
    make_chain(cairn, qemu_io, 3)
    with open("b/000002.qcow2", "r+b") as file:
        file.seek(-100, os.SEEK_END)
        file.write(b"damaged")
    told = cairn("backup", "--verify", "b", ok=False)
    assert told.code == 2 and "000002.qcow2: its checksum" in told.err
    assert "000003.qcow2: it cannot be restored" in told.err and "000001" not in told.err
    cairn("restore", "--at", "1", "b", "r.raw")
    told = cairn("restore", "b", "s.raw", ok=False)
    assert told.code == 1 and "checksum" in told.err and not os.path.exists("s.raw")
    told = cairn("backup", "--prune", "--keep", "1", "b", ok=False)
    assert told.code == 1 and len(os.listdir("b")) == 4
    os.remove("b/000001.qcow2")
    told = cairn("backup", "--verify", "b", ok=False)
    assert told.code == 2 and "000001.qcow2: it is missing" in told.err
    told = cairn("restore", "--at", "1", "b", "s.raw", ok=False)
    assert told.code == 1 and "backup 1: 000001.qcow2: No such file" in told.err
    with open("b/manifest.json", "w") as file:
        file.write("{")
    told = cairn("backup", "--list", "b", ok=False)
    assert told.code == 1 and "can be used without it" in told.err


def test_mistakes_leave_nothing(disk, cairn, qemu_io):
    """A directory that was made for a backup of nothing goes; one of another disk is asked about."""
    assert cairn("backup", "none.qcow2", "c", ok=False).code == 1 and not os.path.exists("c")
    words = ["--daemon", "none.sock", "--node", "n", "c"]
    assert cairn("backup", *words, ok=False).code == 1 and not os.path.exists("c")
    make_chain(cairn, qemu_io, 1)
    assert "1 backup, " in cairn("backup", "--verify", "b").out
    os.symlink("a.qcow2", "other.qcow2")
    assert "give it a directory of its own" in cairn("backup", "other.qcow2", "b").err
    os.makedirs("d")
    os.symlink("../a.qcow2", "d/other.qcow2")
    assert cairn("backup", "d/other.qcow2", "b").err == ""


def changed(key, value, number=1):
    def change(whole):
        whole["backups"][number][key] = value

    return change


HOSTILE = {
    "path": changed("file", "../a.qcow2"),
    "absolute": changed("file", "/etc/passwd"),
    "loop": changed("parent", 2),
    "forward": changed("parent", 3),
    "itself": changed("id", 1),
    "negative": changed("id", -5),
    "huge": changed("id", 1 << 62),
    "real": changed("size", 1e300),
    "size": changed("size", (1 << 63) - 1),
    "text": changed("bytes", "5"),
    "digest": changed("sha256", "0" * 63),
    "time": changed("time", "yesterday"),
    "kind": changed("kind", "full"),
    "method": changed("method", "guess"),
    "no parent": changed("parent", 1, 0),
    "missing": lambda whole: whole["backups"][0].pop("sha256"),
    "list": lambda whole: whole.update(backups={}),
    "element": lambda whole: whole["backups"].append(5),
    "format": lambda whole: whole.update(format="cairn-backup/9"),
    "uuid": lambda whole: whole.update(id="../../x"),
    "next": lambda whole: whole.update(next=1),
    "removing": lambda whole: whole.update(removing=[2]),
    "replacing": lambda whole: whole.update(replacing={"id": 9}),
}


def test_hostile_manifests(disk, cairn, qemu_io):
    make_chain(cairn, qemu_io, 2)
    whole = manifest()
    texts = {"empty": "", "array": "[]", "deep": "[" * 100000, "binary": "\0\1\2"}
    for name, change in HOSTILE.items():
        copy = json.loads(json.dumps(whole))
        change(copy)
        texts[name] = json.dumps(copy)
    files = set(os.listdir("b"))
    for name, text in texts.items():
        with open("b/manifest.json", "w", encoding="utf-8") as file:
            file.write(text)
        for words in (
            ["backup", "--list", "b"],
            ["backup", "--verify", "b"],
            ["backup", "--prune", "--keep", "1", "b"],
            ["backup", "a.qcow2", "b"],
            ["restore", "b", "r.raw"],
        ):
            told = cairn(*words, ok=False)
            assert told.code == 1 and "manifest.json" in told.err, (name, words, told.err)
        assert set(os.listdir("b")) == files and not os.path.exists("r.raw"), name


def test_hostile_files(disk, cairn, qemu, qemu_io):
    """Neither links nor the names in an image lead out of the directory."""
    make_chain(cairn, qemu_io, 2)
    cairn("create", "-q", "secret.qcow2", "8M")
    os.rename("b/000002.qcow2", "two.qcow2")
    os.symlink("../two.qcow2", "b/000002.qcow2")
    told = cairn("restore", "--no-checksum", "b", "r.raw", ok=False)
    assert told.code == 1 and "symbolic link" in told.err
    assert cairn("backup", "--verify", "b", ok=False).code == 2
    os.remove("b/000002.qcow2")
    os.mkfifo("b/000002.qcow2")
    told = cairn("restore", "--no-checksum", "b", "r.raw", ok=False)
    assert told.code == 1 and "regular file" in told.err
    os.remove("b/000002.qcow2")
    os.rename("two.qcow2", "b/000002.qcow2")
    # The backing file that the image names is not the one that is used.
    path = os.path.abspath("secret.qcow2")
    qemu("rebase", "-u", "-b", path, "-F", "qcow2", "b/000002.qcow2")
    cairn("restore", "--no-checksum", "b", "r.raw")
    qemu("compare", "-q", "-f", "raw", "-F", "raw", "r.raw", "2.raw")
    whole = manifest()
    with open("b/000002.qcow2", "rb") as file:
        whole["backups"][1]["sha256"] = hashlib.sha256(file.read()).hexdigest()
    with open("b/manifest.json", "w", encoding="utf-8") as file:
        json.dump(whole, file)
    told = cairn("backup", "--verify", "b", ok=False)
    assert told.code == 2 and "its backing file is" in told.err


def test_one_at_a_time_and_wrong_words(disk, cairn, qemu_io):
    make_chain(cairn, qemu_io, 1)
    with subprocess.Popen(
        ["flock", "b", "sh", "-c", "echo locked; read line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout.readline() == b"locked\n"
        told = cairn("backup", "a.qcow2", "b", ok=False)
        assert told.code == 1 and "uses it" in told.err
        other.stdin.close()
    os.mkdir("c")
    (disk / "c/other").write_text("x")
    for words, says in (
        (["backup", "a.qcow2", "c"], "other files"),
        (["backup", "a.qcow2"], "Expecting"),
        (["backup", "none.qcow2", "b"], "none.qcow2"),
        (["backup", "--list", "c"], "no backups"),
        (["backup", "--prune", "b"], "--keep"),
        (["backup", "--prune", "--keep", "0", "b"], "at least 1"),
        (["backup", "--list", "--verify", "b"], "does not go with"),
        (["backup", "--node", "x", "b"], "go together"),
        (["restore", "b"], "Expecting"),
        (["restore", "--at", "7", "b", "r.raw"], "no backup number 7"),
        (["restore", "--at", "1999-01-01", "b", "r.raw"], "as old as"),
        (["restore", "--at", "monday", "b", "r.raw"], "neither"),
    ):
        told = cairn(*words, ok=False)
        assert told.code == 1 and says in told.err, (words, told.err)
    assert "000001" not in cairn("backup", "--list", "b").out
    assert " full " in cairn("backup", "--list", "b").out
    cairn("restore", "--at", "2999", "b", "r.raw", ok=False)
    cairn("restore", "--at", manifest()["backups"][0]["time"][:10], "b", "r.raw")
