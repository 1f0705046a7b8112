"""check and repair of damaged images: findings, counts, exit codes and what is left, next to qemu-img."""
import json
import os
import re
import shutil
import struct
import subprocess

import pytest

import damage
from conftest import CAIRN, call

MODES = {"": [], "leaks": ["-r", "leaks"], "all": ["-r", "all"]}

# Where qemu-img gives up or spoils the image, and what becomes of it with us: (exit code of -r all, of the check behind it).
BETTER = {
    "block not aligned": (0, 0),
    "block reserved bits": (0, 0),
    "block far past the end": (0, 0),
}
# Opening these, QEMU tries to store bitmaps that it has not understood, and may mark the image corrupt over that: what is
# found, counted and returned is compared, not what it says about storing nor the mark.
BITMAPS = {
    "bitmap directory not counted",
    "bitmaps without their bit",
    "bitmap data past the end",
    "bitmap table of noise",
}
STORING = re.compile(
    r"qcow2_free_clusters failed|Marking image as corrupt|Lost persistent bitmaps|Error while closing|A table entry has bits set"
)


def findings(result):
    code, out, err = result
    lines = err.replace("image file to fix.Leaked", "image file to fix.\nLeaked").splitlines()
    return (
        code,
        out,
        [line.removeprefix("qemu-img: warning: ") for line in lines if not STORING.search(line)],
    )


def run(tool, mode, image, human=False):
    words = ["check", *MODES[mode]] + ([] if human else ["--output=json"])
    done = call(tool, *words, image, ok=False)
    out = done.out
    if not human and out.startswith("{"):
        out = {
            key: value
            for key, value in json.loads(out).items()
            if key not in ("filename", "format")
        }
    return done.code, out, done.err.replace(str(tool), "qemu-img")


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")

    def qemu_io(image, *commands):
        call(
            "qemu-io",
            "-f",
            "qcow2",
            *[word for command in commands for word in ("-c", command)],
            image,
        )

    for name in damage.BASES:
        damage.make(name, folder / name, lambda *words: call("qemu-img", *words), qemu_io)
    return folder


@pytest.fixture
def tool():
    return CAIRN.parent / "compat" / "qemu-img"


@pytest.mark.parametrize(
    "name, base, change", [pytest.param(*row, id=row[0]) for row in damage.DAMAGES]
)
def test_as_qemu(folder, bases, tool, name, base, change):
    image = damage.Damaged(bases / base)
    change(image)
    image.save("damaged")
    for mode in MODES:
        if name in BETTER and mode:
            continue
        found = {}
        for side, program in (("theirs", "qemu-img"), ("ours", tool)):
            shutil.copy("damaged", "x")
            found[side] = (
                run(program, mode, "x"),
                call("qemu-img", "check", "x", ok=False).code,
                open("x", "rb").read(80)[72:],
            )
            assert not os.path.exists("x.cairn-repair") or found[side][0][0] == 1, (name, mode)
            if os.path.exists("x.cairn-repair"):
                os.unlink("x.cairn-repair")
        if name in BITMAPS:
            assert findings(found["ours"][0]) == findings(found["theirs"][0]), mode
            continue
        assert found["ours"] == found["theirs"], mode
    shutil.copy("damaged", "x")
    code, out, err = run(tool, "all", "x")
    if name in BETTER:
        assert (code, call("qemu-img", "check", "x", ok=False).code) == BETTER[name], err
    # What could be read before reads the same now.
    if (
        call("qemu-img", "convert", "-O", "raw", "damaged", "before", ok=False).code == 0
        and code == 0
    ):
        call("qemu-img", "convert", "-O", "raw", "x", "after")
        assert open("before", "rb").read() == open("after", "rb").read()


@pytest.mark.parametrize(
    "name",
    [
        "sound",
        "leaks",
        "leak and error",
        "COPIED missing on data",
        "snapshot without its disk size",
        "data not aligned",
        "block past all files",
    ],
)
def test_words_for_people(folder, bases, tool, name):
    base, change = next(row[1:] for row in damage.DAMAGES if row[0] == name)
    image = damage.Damaged(bases / base)
    change(image)
    for mode in MODES:
        image.save("ours")
        image.save("theirs")
        assert run(tool, mode, "ours", human=True) == run("qemu-img", mode, "theirs", human=True)


def test_the_plan(folder, bases, cairn):
    """`cairn check` says what a repair would do, and changes nothing."""
    image = damage.Damaged(bases / "snapshots")
    damage.leak(image)
    image.refcount(image.host(10) // image.cluster, 1)
    damage.short_extra(image, 8)
    image.save("x")
    before = open("x", "rb").read()
    out = cairn("check", "x", ok=False).out
    assert "-r leaks, all: 3 counters are lowered" in out and "-r all: 1 counters are raised" in out
    assert "-r all: 1 entries of the snapshot table are completed" in out
    assert open("x", "rb").read() == before
    image.count(image.host(1))
    image.save("x")
    assert "-r all: the refcount structures are rebuilt" in cairn("check", "x", ok=False).out


@pytest.mark.parametrize(
    "options",
    [
        "cluster_size=64k",
        "cluster_size=512",
        "cluster_size=4k,refcount_bits=1",
        "cluster_size=16k,extended_l2=on,refcount_bits=64",
    ],
)
def test_dirty_images(folder, ours, cairn, qemu, qemu_io, options):
    """The mark of lazy refcounts: set by us and read by QEMU, and the other way round."""
    qemu("create", "-q", "-f", "qcow2", "-o", options + ",lazy_refcounts=on", "a.qcow2", "2M")
    cairn("bench", "-q", "-w", "-c", "20", "-s", "5k", "-S", "40k", "--pattern", "7", "a.qcow2")
    qemu("check", "-q", "a.qcow2")
    assert qemu("info", "--output=json", "a.qcow2").json()["dirty-flag"] is False
    # As after a crash: the mark is there, counters are missing.
    image = damage.Damaged("a.qcow2")
    damage.incompatible(image, damage.DIRTY)
    for i in range(5, 9):
        image.refcount(i, 0)
    image.save("a.qcow2")
    shutil.copy("a.qcow2", "b.qcow2")
    code, out, err = run(CAIRN, "", "a.qcow2")
    assert code in (2, 3) and open("a.qcow2", "rb").read() == open("b.qcow2", "rb").read()
    cairn("convert", "-O", "raw", "a.qcow2", "before.raw")
    theirs = qemu_io("b.qcow2", "write -P 9 1M 3k").err
    mine = cairn(
        "bench", "-q", "-w", "-c", "1", "-s", "3k", "-o", "1M", "--pattern", "9", "a.qcow2"
    ).err
    assert mine == theirs and "Rebuilding refcount structure" in mine
    for name in ("a.qcow2", "b.qcow2"):
        qemu("check", "-q", name)
        assert qemu("info", "--output=json", name).json()["dirty-flag"] is False
    qemu("compare", "-q", "a.qcow2", "b.qcow2")


def test_a_dirty_image_beyond_repair(folder, bases, cairn):
    image = damage.Damaged(bases / "bits1")
    damage.incompatible(image, damage.DIRTY)
    image.put(image.entry(101), image.get(image.entry(1)))
    image.put(image.table + 8, 1 << 62 | 3)
    image.save("x")
    code = cairn("bench", "-q", "-w", "-c", "1", "x", ok=False).code
    assert code in (0, 1)
    call("qemu-img", "info", "x")


def test_corruption_is_marked(folder, bases, cairn, ours, qemu_io):
    """A write that meets damage marks the image; from then on it opens for reading alone, until it is repaired."""
    image = damage.Damaged(bases / "plain")
    good = image.get(image.entry(1))
    image.put(image.entry(1), good + 512)
    image.save("ours")
    image.save("theirs")
    done = cairn("bench", "-w", "-c", "1", "-s", "64k", "-o", "64k", "ours", ok=False)
    other = qemu_io("theirs", "write 64k 64k", ok=False)
    message = "qcow2: Marking image as corrupt: "
    assert done.code == 1 and message in done.err and message in other.err
    for name in ("ours", "theirs"):
        assert open(name, "rb").read(80)[79] == damage.CORRUPT
        assert (
            call("qemu-img", "info", "--output=json", name).json()["format-specific"]["data"][
                "corrupt"
            ]
            is True
        )
        for words in (["bench", "-w", "-c", "1"], ["resize"]):
            refused = ours(*words, name, *(["8M"] if words == ["resize"] else []), ok=False)
            assert (
                refused.code == 1
                and "qcow2: Image is corrupt; cannot be opened read/write" in refused.err
            )
        cairn("info", name)
        fixed = damage.Damaged(name)
        fixed.put(fixed.entry(1), good)
        fixed.save(name)
        ours("check", "-q", "-r", "all", name)
        qemu_io(name, "write -P 5 64k 64k", "read -P 5 64k 64k")


PARTS = [
    ("main-header", "qcow2_header", lambda i: 0, "plain"),
    ("active-l1", "active L1 table", lambda i: i.l1, "plain"),
    ("active-l2", "active L2 table", lambda i: i.l2(), "plain"),
    ("refcount-table", "refcount table", lambda i: i.table, "plain"),
    ("refcount-block", "refcount block", lambda i: i.block, "plain"),
    ("snapshot-table", "snapshot table", lambda i: i.snapshots, "snapshots"),
    ("inactive-l1", "inactive L1 table", lambda i: i.get(i.snapshots), "snapshots"),
    ("inactive-l2", "inactive L2 table", lambda i: i.l2(0, i.get(i.snapshots)), "snapshots"),
]


@pytest.mark.parametrize(
    "part, words, place, base", [pytest.param(*row, id=row[0]) for row in PARTS]
)
def test_overlap_checks(folder, bases, cairn, part, words, place, base):
    """A data cluster that lies on a table is written or refused as with QEMU, for each setting."""
    image = damage.Damaged(bases / base)
    target = place(image)
    # The header cannot be named by an entry; free counters lead there.
    if target == 0:
        damage.all_counts(image, 0)
    else:
        image.put(image.entry(1), damage.COPIED | target)
    cluster = image.cluster
    for setting in (
        "overlap-check=none",
        "overlap-check=constant",
        "overlap-check=cached",
        "overlap-check=all",
        f"overlap-check=none,overlap-check.{part}=on",
        f"overlap-check=all,overlap-check.{part}=off",
    ):
        found = []
        for name in ("ours", "theirs"):
            image.save(name)
            opened = f"driver=qcow2,file.driver=file,file.filename={name},{setting}"
            if target == 0:
                command, at = f"write -P 1 {cluster * 40} {cluster}", cluster * 40
            else:
                command, at = f"write -P 1 {cluster} {cluster}", cluster
            if name == "ours":
                done = cairn(
                    "bench",
                    "-q",
                    "-w",
                    "-c",
                    "1",
                    "-s",
                    cluster,
                    "-o",
                    at,
                    "--image-opts",
                    opened,
                    ok=False,
                )
            else:
                done = call("qemu-io", "-c", command, "--image-opts", opened, ok=False)
            found.append(
                (
                    done.code,
                    [line for line in done.err.splitlines() if "Marking" in line],
                    open(name, "rb").read(80)[79],
                )
            )
        if target:
            assert found[0] == found[1], setting
            assert (words in str(found[0])) == (found[0][0] == 1)
        else:
            # No setting lets a cluster be given away that the header has.
            assert found[0][0] == 1 and "at offset 0" in str(found[0][1]), setting


@pytest.mark.parametrize(
    "name",
    [
        "leak and error",
        "a leak with one bit",
        "no refcount table, small",
        "snapshot without its disk size",
        "data shared by two entries",
        "first block past the end",
    ],
)
def test_interrupted_at_every_write(folder, bases, cairn, name):
    """A repair that ends after any number of writes: the next one undoes it, does all of it, and nothing is lost."""
    base, change = next(row[1:] for row in damage.DAMAGES if row[0] == name)
    image = damage.Damaged(bases / base)
    change(image)
    image.save("damaged")
    if cairn("convert", "-O", "raw", "damaged", "before.raw", ok=False).code != 0:
        cairn("convert", "-O", "raw", bases / base, "before.raw")
    shutil.copy("damaged", "whole")
    expected = run(CAIRN, "all", "whole")
    for number in range(200):
        shutil.copy("damaged", "x")
        # Every write from this one on fails, as if the program were gone.
        options = f"driver=qcow2,file.driver=fault,file.on=write,file.after={number},file.file.driver=file,file.file.filename=x"
        first = cairn("check", "-r", "all", "--image-opts", options, ok=False)
        if first.code == 0:
            break
        if os.path.exists("x.cairn-repair") and open("x", "rb").read() != image.bytes:
            plain = cairn("check", "x", ok=False)
            assert "was interrupted" in plain.err, number
        code, out, err = run(CAIRN, "all", "x")
        assert code == 0, (number, err)
        assert not os.path.exists("x.cairn-repair")
        call("qemu-img", "check", "-q", "x")
        cairn("convert", "--overwrite", "-O", "raw", "x", "after.raw")
        assert open("before.raw", "rb").read() == open("after.raw", "rb").read(), number
        # But for a mark that was the last thing to be done, it is as if there had been no first attempt.
        if number < 2:
            assert (code, out) == expected[:2], number
    assert 3 <= number < 199


def test_a_journal_that_does_not_belong(folder, bases, cairn):
    image = damage.Damaged(bases / "plain")
    damage.leak(image)
    image.save("x")
    cairn(
        "check",
        "-r",
        "all",
        "--image-opts",
        "driver=qcow2,file.driver=fault,file.on=write,file.after=1,file.file.driver=file,file.file.filename=x",
        ok=False,
    )
    assert os.path.exists("x.cairn-repair")
    changed = bytearray(open("x", "rb").read())
    changed[image.block + 30] ^= 1
    open("x", "wb").write(changed)
    done = cairn("check", "-r", "all", "x", ok=False)
    assert (
        done.code == 1
        and "does not belong to the image" in done.err
        and "Remove x.cairn-repair" in done.err
    )
    assert open("x", "rb").read() == changed
    os.unlink("x.cairn-repair")
    os.symlink("/etc/hostname", "x.cairn-repair")
    done = cairn("check", "-r", "all", "x", ok=False)
    assert done.code == 1 and "not a regular file" in done.err
    os.unlink("x.cairn-repair")
    for content in (b"", b"x" * 100, b"x" * 2000, os.urandom(4096)):
        open("x.cairn-repair", "wb").write(content)
        done = cairn("check", "-r", "all", "x", ok=False)
        assert done.code in (0, 1) and done.code == (0 if len(content) < 512 else 1)
        if os.path.exists("x.cairn-repair"):
            os.unlink("x.cairn-repair")


def test_without_room_for_a_journal(folder, bases, cairn):
    """A folder that cannot be written: the repair says so and goes on."""
    image = damage.Damaged(bases / "plain")
    damage.leak(image)
    os.mkdir("d")
    image.save("d/x")
    with open("d/x", "r+b") as file:
        done = subprocess.run(
            [CAIRN, "check", "-r", "all", f"/proc/self/fd/{file.fileno()}"],
            pass_fds=[file.fileno()],
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0 and "keeps no journal" in done.stderr
    call("qemu-img", "check", "-q", "d/x")


def test_many_snapshots(folder, bases, tool):
    """Tables with more snapshots, or more bytes of them, than an image may have."""
    image = damage.Damaged(bases / "snapshots")
    image.put(60, 65537, "I")
    for mode in ("", "leaks"):
        image.save("ours")
        assert run(tool, mode, "ours") == run("qemu-img", mode, "ours")
    image = damage.Damaged(bases / "snapshots")
    one = damage.entries(image)[0]
    one = (
        bytes(one[:12])
        + b"\xff\xff\xff\xff"
        + bytes(one[16:36])
        + struct.pack(">I", 24)
        + bytes(one[40:64])
        + b"n" * 131070
    )
    one += bytes(-len(one) % 8)
    place = image.grow(0) * image.cluster
    image.bytes += one * 530
    image.put(60, 530, "I")
    image.put(64, place)
    for mode in MODES:
        image.save("ours")
        image.save("theirs")
        ours, theirs = run(tool, mode, "ours"), run("qemu-img", mode, "theirs")
        assert ours[0] == theirs[0]
        if mode == "all":
            assert ours[1]["corruptions-fixed"] == theirs[1]["corruptions-fixed"]
            call("qemu-img", "check", "-q", "ours")
        else:
            assert ours == theirs


def test_a_file_that_claims_to_be_long(folder, cairn):
    """Counters are made for the file, and not for more clusters than the limit of both programs."""
    cairn("create", "-q", "-f", "qcow2", "-o", "cluster_size=512", "a.qcow2", "1M")
    os.truncate("a.qcow2", 1 << 42)
    done = cairn("check", "a.qcow2", ok=False)
    assert done.code == 1 and "File too large" in done.err
