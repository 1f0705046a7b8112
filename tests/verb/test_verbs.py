"""Options, outputs and exit codes of the verbs, next to the real qemu-img's."""
import os
import signal
import subprocess
import time

import pytest

from conftest import CAIRN, small_file_system, sparse_disk


def same(ours, qemu, *words):
    """Both programs print and return the same."""
    mine, theirs = ours(*words, ok=False), qemu(*words, ok=False)
    assert (mine.code, mine.out) == (theirs.code, theirs.out)
    return mine


@pytest.fixture
def images(folder, qemu, qemu_io):
    sparse_disk("a.raw", 1 << 20)
    qemu("convert", "-O", "qcow2", "a.raw", "a.qcow2")
    qemu("create", "-q", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", "over.qcow2")
    qemu_io("over.qcow2", "write -P 1 0 8k", "write -z 128k 64k")
    subprocess.run(["sync", "a.raw", "a.qcow2", "over.qcow2"], check=True)
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["info", "a.raw"],
        ["info", "--output=json", "a.raw"],
        ["info", "over.qcow2"],
        ["info", "--output=json", "--backing-chain", "over.qcow2"],
        ["info", "-f", "raw", "a.qcow2"],
        ["info", "json:{'driver':'raw','file.filename':'a.qcow2'}"],
        ["info", "--image-opts", "driver=raw,offset=512,file.filename=a.raw"],
        ["info", "--image-opts", "driver=qcow2,file.driver=file,file.filename=a.qcow2"],
        ["info", "null-co://"],
        ["info", "missing"],
        ["info", "-f", "nope", "a.raw"],
        ["info", "-f", "qcow2", "a.raw"],
        ["map", "a.raw"],
        ["map", "--output=json", "a.raw"],
        ["map", "over.qcow2"],
        ["map", "--output=json", "-s", "64k", "-l", "100k", "over.qcow2"],
        ["map", "--output=json", "-l", "0", "a.raw"],
        ["check", "a.raw"],
        ["check", "a.qcow2"],
        ["check", "--output=json", "a.qcow2"],
        ["check", "-q", "over.qcow2"],
        ["compare", "a.raw", "a.qcow2"],
        ["compare", "a.qcow2", "over.qcow2"],
        ["compare", "-s", "a.raw", "a.qcow2"],
        ["compare", "a.raw", "missing"],
        ["compare", "-q", "a.raw", "a.qcow2"],
        ["compare", "a.raw"],
        ["compare", "-p", "a.raw", "a.qcow2"],
        ["measure", "-O", "qcow2", "a.raw"],
        ["measure", "-O", "qcow2", "--output=json", "--size", "10G"],
        ["measure", "-O", "qcow2", "-o", "cluster_size=4k,extended_l2=off", "a.qcow2"],
        ["measure", "--size", "1000"],
        ["measure", "-O", "qcow2", "-o", "preallocation=full", "a.raw"],
        ["measure"],
        ["measure", "-O", "qcow2", "--size", "2T"],
        ["resize", "a.raw", "+1000"],
        ["resize", "a.qcow2", "8M"],
        ["resize", "a.raw", "-1M"],
        ["resize", "--shrink", "a.raw", "-64k"],
        ["resize", "--preallocation=falloc", "a.qcow2", "+1M"],
        ["resize", "--preallocation=full", "a.raw", "+1M"],
        ["resize", "a.raw", "5x"],
        ["resize", "a.qcow2", "0"],
        ["resize", "--shrink", "a.qcow2", "512k"],
        ["create", "-f", "raw", "new", "10M"],
        ["create", "-f", "qcow2", "new", "1.5G"],
        ["create", "new"],
        ["create", "-f", "x", "new", "1"],
        ["create", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", "new"],
        ["create", "-f", "qcow2", "-b", "a.qcow2", "new"],
        ["create", "-f", "qcow2", "-u", "-b", "gone", "-F", "raw", "new", "1M"],
        ["create", "-f", "qcow2", "-b", "gone", "-F", "raw", "new"],
        ["create", "-f", "qcow2", "-o", "cluster_size=1000", "new", "1M"],
        ["create", "-f", "qcow2", "-o", "nonsense=1", "new", "1M"],
        ["create", "-f", "raw", "-b", "a.raw", "new", "1M"],
        ["create", "-f", "qcow2", "-o", "size=3M", "new"],
        ["create", "-f", "qcow2", "-o", "size=3M", "new", "1M"],
        ["create", "-f", "qcow2", "-o", "help"],
        ["create", "-o", "help"],
        ["create", "-f", "qcow2", "-o", "lazy_refcounts=yes,compat=1.1", "new", "1M"],
        ["create", "-f", "raw", "-o", "preallocation=falloc", "new", "1M"],
        ["create", "-f", "raw", "-o", "preallocation=metadata", "new", "1M"],
        ["create", "-f", "qcow2", "new", "9E"],
        ["create", "-f", "qcow2", "-o", "cluster_size=512", "new", "1P"],
        ["convert", "-O", "qcow2", "a.raw", "new"],
        ["convert", "-p", "-O", "qcow2", "a.raw", "new"],
        ["convert", "a.raw"],
        ["convert", "-c", "-O", "raw", "a.raw", "new"],
        ["convert", "-n", "a.raw", "missing"],
        ["convert", "-S", "1000", "a.raw", "new"],
        ["convert", "-O", "qcow2", "a.raw", "a.raw", "joined"],
        ["convert", "-O", "nope", "a.raw", "new"],
        ["convert", "-C", "-c", "-O", "qcow2", "a.raw", "new"],
        ["convert", "-O", "qcow2", "-o", "backing_file=a.qcow2", "over.qcow2", "new"],
        ["convert", "missing", "new"],
        ["convert", "-O", "qcow2", "-l", "snap", "a.raw", "new"],
        ["bench", "-c", "0", "a.raw"],
        ["bench", "--flush-interval", "10", "a.raw"],
        ["nope"],
        [],
        ["info"],
        ["--version-nope"],
    ],
    ids=lambda words: " ".join(words) or "nothing",
)
def test_same_as_qemu(ours, qemu, images, words, tmp_path_factory):
    twin = tmp_path_factory.mktemp("twin") / "images"
    changes = words and words[0] in ("create", "convert", "resize", "bench")
    if changes:
        subprocess.run(["cp", "-a", ".", twin], check=True)
    mine = ours(*words, ok=False)
    theirs = qemu(*words, ok=False, cwd=twin if changes else ".")
    assert mine.code == theirs.code, (mine.out, mine.err, theirs.err)
    if "-p" in words:
        assert mine.out.startswith("    (0.00/100%)") and mine.out.endswith("\n")
    else:
        assert mine.out == theirs.out, (mine.err, theirs.err)
    for name in ("a.raw", "new") if changes and not mine.code else ():
        if os.path.exists(f"{twin}/{name}"):
            assert (
                qemu("info", "--output=json", name).json()["virtual-size"]
                == qemu("info", "--output=json", name, cwd=twin).json()["virtual-size"]
            )
    if mine.code and mine.err:
        assert "qemu-img: " in mine.err


def test_messages_name_file_and_reason(ours, images):
    assert (
        ours("info", "missing", ok=False).err
        == "qemu-img: Could not open 'missing': Could not open 'missing': No such file or directory\n"
    )
    assert ours("create", "-f", "qcow2", "x", "1x", ok=False).err == (
        "qemu-img: Invalid image size specified. You may use k, M, G, T, P or E suffixes for\n"
        "qemu-img: kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.\n"
    )
    assert ours("info", "-f", ok=False).err == (
        "qemu-img: missing argument for option '-f'\nTry 'qemu-img --help' for more information\n"
    )
    assert ours("info", "--nope", "x", ok=False).err == (
        "qemu-img: unrecognized option '--nope'\nTry 'qemu-img --help' for more information\n"
    )
    assert "is not in qcow2 format" in ours("info", "-f", "qcow2", "a.raw", ok=False).err


def test_help_lists_formats(ours, cairn):
    line = [row for row in ours("--help").out.splitlines() if row.startswith("Supported formats:")][
        0
    ]
    names = line.split()[2:]
    assert names == sorted(set(names)) and {"raw", "qcow2", "file"} <= set(names)
    for verb in (
        "info",
        "create",
        "convert",
        "compare",
        "map",
        "check",
        "resize",
        "measure",
        "bench",
    ):
        assert verb in cairn("help").out
        assert "Usage: cairn " + verb in cairn(verb, "--help").out


def test_people_need_not_name_the_format(cairn, qemu, disk):
    cairn("convert", disk, "disk.qcow2")
    assert qemu("info", "--output=json", "disk.qcow2").json()["format"] == "qcow2"
    cairn("create", "new.qcow2", "1G")
    assert qemu("info", "--output=json", "new.qcow2").json()["virtual-size"] == 1 << 30


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["-m", "1"],
        ["-m", "16", "-W"],
        ["-S", "0"],
        ["-S", "64k"],
        ["-C"],
        ["-t", "none"],
        ["-T", "none"],
        ["-t", "writethrough"],
        ["-r", "50M"],
        ["-q"],
        ["--salvage"],
        ["-t", "directsync", "-T", "directsync"],
    ],
    ids=lambda options: " ".join(options) or "defaults",
)
@pytest.mark.parametrize("target", ["raw", "qcow2"])
def test_convert_options(ours, qemu, disk, options, target):
    ours("convert", "-O", target, *options, disk, "out")
    assert "identical" in qemu("compare", "-f", "raw", "-F", target, disk, "out").out
    ours("convert", "-f", target, "-O", "raw", *options, "out", "back.raw")
    assert open("back.raw", "rb").read() == disk.read_bytes()
    if "-S" in options and options[1] == "0":
        assert all(
            piece["data"] for piece in qemu("map", "-f", target, "--output=json", "out").json()
        )


def test_convert_into_existing_target(ours, qemu, disk):
    size = disk.stat().st_size
    qemu("create", "-q", "-f", "qcow2", "t.qcow2", size + 1024 * 1024)
    qemu_fill = subprocess.run(
        ["qemu-io", "-c", f"write -P 9 0 {size + 1024 * 1024 - 512}", "t.qcow2"],
        capture_output=True,
    )
    assert qemu_fill.returncode == 0
    ours("convert", "-n", "-O", "qcow2", disk, "t.qcow2")
    qemu("check", "-q", "t.qcow2")
    ours("resize", "-q", "--shrink", "t.qcow2", size)
    assert "identical" in qemu("compare", "-f", "raw", disk, "t.qcow2").out
    ours("convert", "-n", "--target-image-opts", disk, "driver=qcow2,file.filename=t.qcow2")
    assert "identical" in qemu("compare", "-f", "raw", disk, "t.qcow2").out
    qemu("create", "-q", "-f", "qcow2", "small.qcow2", "1M")
    failed = ours("convert", "-n", "-O", "qcow2", disk, "small.qcow2", ok=False)
    assert failed.code == 1 and "output file is smaller than input file" in failed.err


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
@pytest.mark.parametrize(
    "verb",
    [["convert", "-O", "raw"], ["convert", "-O", "qcow2"], ["convert", "-n", "-O", "raw"], ["dd"]],
    ids=" ".join,
)
def test_an_image_is_not_copied_onto_itself(ours, qemu, disk, verb, fmt):
    qemu("convert", "-f", "raw", "-O", fmt, disk, "self")
    qemu("create", "-q", "-f", "qcow2", "-b", "self", "-F", fmt, "over.qcow2")
    before = open("self", "rb").read()
    for source in ("self", "over.qcow2"):
        words = [f"if={source}", "of=self"] if verb[0] == "dd" else [source, "self"]
        theirs = qemu(*verb, *words, ok=False)
        kept = open("self", "rb").read() == before
        open("self", "wb").write(before)
        mine = ours(*verb, *words, ok=False)
        assert mine.code == 1 and "lock" in mine.err and open("self", "rb").read() == before
        assert theirs.code == 1 or not kept


def test_an_image_is_not_laid_onto_itself(ours, qemu, folder):
    qemu("create", "-q", "-f", "qcow2", "a.qcow2", "1M")
    before = open("a.qcow2", "rb").read()
    for name in ("a.qcow2", "./a.qcow2", f"{folder}/a.qcow2"):
        refused = ours("create", "-f", "qcow2", "-b", name, "-F", "qcow2", "a.qcow2", ok=False)
        assert refused.code == 1 and "same filename as the backing file" in refused.err
        assert open("a.qcow2", "rb").read() == before


def test_full_disk_fails_the_conversion(ours, disk, folder):
    """The target's file system is too small: an error that names byte and target, exit code 1."""
    (folder / "noise").write_bytes(os.urandom(4 << 20))
    with small_file_system("small", "1m"):
        for words in (["-O", "raw"], ["-O", "qcow2"], ["-c", "-O", "qcow2"]):
            failed = ours("convert", *words, "noise", "small/out", ok=False)
            assert failed.code == 1
            assert "error while writing at byte" in failed.err and "No space left" in failed.err
            assert "small/out" in failed.err


@pytest.mark.parametrize(
    "verb, event, code", [("commit", "write_aio", 28), ("rebase", "read_aio", 5)]
)
def test_a_job_that_fails_says_so_in_qemus_words(ours, qemu, qemu_io, folder, verb, event, code):
    base = (
        'json:{"driver":"raw","file":{"driver":"blkdebug","image":{"driver":"file","filename":"base.raw"},'
        f'"inject-error":[{{"event":"{event}","errno":{code}}}]}}}}'
    )
    told = []
    for tool in (ours, qemu):
        sparse_disk("base.raw", 1 << 20)
        qemu("create", "-q", "-f", "qcow2", "-u", "-b", base, "-F", "raw", "top.qcow2", "1M")
        qemu_io("top.qcow2", "write -q -P 7 0 64k")
        done = tool(
            verb, *(["-b", ""] if verb == "rebase" else []), "-f", "qcow2", "top.qcow2", ok=False
        )
        told.append((done.code, done.err.split("\n")[0], done.out))
    assert told[0] == told[1]
    assert told[0][0] == 1


def test_truncated_source_is_an_error(ours, qemu, disk):
    with open(disk, "r+b") as out:
        out.write(os.urandom(2 << 20))
    qemu("convert", "-O", "qcow2", "-c", disk, "a.qcow2")
    os.truncate("a.qcow2", os.path.getsize("a.qcow2") * 3 // 4)
    failed = ours("convert", "-O", "raw", "a.qcow2", "out.raw", ok=False)
    assert failed.code == 1 and "error while reading at byte" in failed.err
    saved = ours("convert", "--salvage", "-O", "raw", "a.qcow2", "out.raw")
    assert "warning: error while reading offset" in saved.err
    assert os.path.getsize("out.raw") == disk.stat().st_size


def test_interrupt_ends_a_conversion(folder):
    with open("big.raw", "wb") as out:
        for _ in range(32):
            out.write(os.urandom(1 << 20))
    job = subprocess.Popen(
        [CAIRN, "convert", "-r", "1M", "big.raw", "out.qcow2"], stderr=subprocess.PIPE, text=True
    )
    time.sleep(1)
    job.send_signal(signal.SIGINT)
    assert job.wait(timeout=20) == 128 + signal.SIGINT
    told = job.stderr.read()
    assert "cancelled" in told and "out.qcow2" in told


def test_closed_output_is_an_error(folder, disk):
    job = subprocess.run(
        ["/bin/sh", "-c", f"{CAIRN} info {disk} >/dev/full"], capture_output=True, text=True
    )
    assert job.returncode == 1 and "No space left" in job.stderr


def test_secret_objects(ours, disk):
    ours("info", "--object", "secret,id=s,data=x", disk)
    assert (
        "Parameter 'id' is missing" in ours("info", "--object", "secret,data=x", disk, ok=False).err
    )
    assert (
        "mutually exclusive"
        in ours("info", "--object", "secret,id=s,data=x,file=y", disk, ok=False).err
    )


def test_untrusted_opens_nothing_else(cairn, qemu, images):
    cairn("info", "--untrusted", "over.qcow2")
    refused = cairn("map", "--untrusted", "over.qcow2", ok=False)
    assert refused.code == 1 and "a.qcow2" in refused.err
