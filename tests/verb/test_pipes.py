"""`cairn convert` and its like from and to pipes: what is said about "-" in docs/pipes.md."""
import bz2
import gzip
import hashlib
import json
import lzma
import os
import pty
import signal
import subprocess
import time

import pytest

from conftest import CAIRN, small_file_system, sparse_disk

SIZE = 3 << 20


@pytest.fixture
def disks(folder, qemu):
    sparse_disk("a.raw", SIZE, pieces=20)
    qemu("convert", "-O", "qcow2", "a.raw", "a.qcow2")
    return folder


def content(name):
    with open(name, "rb") as file:
        return file.read()


def piped(*words, source=b"", ok=True, **more):
    """Runs cairn between two pipes."""
    done = subprocess.run([CAIRN, *words], input=source, capture_output=True, timeout=60, **more)
    if ok:
        assert done.returncode == 0, done.stderr
    return done


# --- standard input ---


def test_a_raw_disk_goes_on_as_it_comes(disks, qemu):
    done = piped(
        "convert", "-", "t.raw", source=content("a.raw"), env={**os.environ, "TMPDIR": "/nowhere"}
    )
    assert content("t.raw") == content("a.raw") and done.stderr == b"" and done.stdout == b""
    assert os.stat("t.raw").st_blocks * 512 < SIZE
    piped("convert", "-f", "raw", "-", "q.raw", source=content("a.qcow2"))
    assert content("q.raw")[: len(content("a.qcow2"))] == content("a.qcow2")
    odd = piped("convert", "--hash", "sha256", "-", "-", source=content("a.raw")[:100_001])
    assert odd.stdout == content("a.raw")[:100_001] + bytes(100_352 - 100_001)
    assert odd.stderr.split()[0].decode() == hashlib.sha256(odd.stdout).hexdigest()


PACKERS = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": lambda data: subprocess.run(
        ["zstd", "-q", "-c"], input=data, capture_output=True, check=True
    ).stdout,
}


@pytest.mark.parametrize("kind", sorted(PACKERS))
def test_packed_input(disks, qemu, kind):
    piped(
        "convert",
        "-",
        "t.raw",
        source=PACKERS[kind](content("a.raw")),
        env={**os.environ, "TMPDIR": "/nowhere"},
    )
    assert content("t.raw") == content("a.raw")
    done = piped("convert", "-", "t.qcow2", source=PACKERS[kind](content("a.qcow2")))
    qemu("compare", "a.raw", "t.qcow2")
    qemu("check", "t.qcow2")
    assert b"temporary file in" in done.stderr
    twice = gzip.compress(PACKERS[kind](content("a.raw")))
    piped("convert", "-q", "-", "u.qcow2", source=twice)
    qemu("compare", "a.raw", "u.qcow2")
    cut = PACKERS[kind](content("a.raw"))
    done = piped("convert", "-", "cut.raw", source=cut[: len(cut) // 2], ok=False)
    assert (
        done.returncode == 1
        and b"standard input cannot be unpacked" in done.stderr
        and not os.path.exists("cut.raw")
    )


@pytest.mark.parametrize(
    "fmt, options",
    [
        ("qcow2", []),
        ("vmdk", []),
        ("vdi", []),
        ("vhdx", []),
        ("vpc", ["-o", "force_size=on"]),
        ("vpc", ["-o", "subformat=fixed,force_size=on"]),
        ("vmdk", ["-o", "subformat=streamOptimized"]),
    ],
)
def test_images_are_stored_first(disks, qemu, fmt, options):
    qemu("convert", "-O", fmt, *options, "a.raw", "x")
    words = ["-f", "vpc"] if "subformat=fixed,force_size=on" in options else []
    done = piped("convert", *words, "-", "t.qcow2", source=content("x"))
    qemu("compare", "a.raw", "t.qcow2")
    assert (
        done.stderr.count(b"\n") == 1
        and b"temporary file in '/var/tmp' first" in done.stderr
        or os.environ.get("TMPDIR")
    )
    assert piped("convert", "-q", *words, "-", "u.raw", source=content("x")).stderr == b""
    assert content("u.raw") == content("a.raw")


def test_a_format_that_shows_at_its_end(disks, qemu):
    qemu("convert", "-O", "vpc", "-o", "subformat=fixed,force_size=on", "a.raw", "x.vhd")
    done = piped("convert", "-", "t.raw", source=content("x.vhd"), ok=False)
    assert done.returncode == 1 and b"format vpc" in done.stderr and b"-f vpc" in done.stderr
    assert not os.path.exists("t.raw")


def test_a_file_as_standard_input_is_read_in_place(disks, qemu):
    for name in "a.qcow2", "a.raw":
        with open(name, "rb") as file:
            done = subprocess.run(
                [CAIRN, "convert", "-", "t-" + name],
                stdin=file,
                capture_output=True,
                env={**os.environ, "TMPDIR": "/nowhere"},
            )
        assert done.returncode == 0 and done.stderr == b"", done.stderr
        qemu("compare", "a.raw", "t-" + name)
    # From where it stands.
    with open("two", "wb") as file:
        file.write(b"x" * 512 + content("a.raw"))
    with open("two", "rb", buffering=0) as file:
        file.read(512)
        subprocess.run([CAIRN, "convert", "-", "rest.raw"], stdin=file, check=True)
    assert content("rest.raw") == content("a.raw")


def test_hash_and_compare(disks, cairn):
    wanted = hashlib.sha256(content("a.raw")).hexdigest()
    for source in (
        content("a.raw"),
        content("a.qcow2"),
        gzip.compress(content("a.raw")),
        lzma.compress(content("a.qcow2")),
    ):
        assert piped("hash", "-", source=source).stdout.split() == [wanted.encode(), b"-"]
    odd = content("a.raw")[:7777]
    open("odd.raw", "wb").write(odd)
    assert (
        piped("hash", "-", source=odd).stdout.split()[0]
        == cairn("hash", "odd.raw").out.split()[0].encode()
    )
    shown = json.loads(piped("hash", "--output", "json", "-", source=content("a.raw")).stdout)
    assert shown["format"] == "raw" and shown["virtual-size"] == SIZE and shown["digest"] == wanted
    assert b"identical" in piped("compare", "-", "a.qcow2", source=content("a.raw")).stdout
    other = bytearray(content("a.raw"))
    other[1 << 20] ^= 1
    assert piped("compare", "a.qcow2", "-", source=bytes(other), ok=False).returncode == 1


def test_dd(disks):
    piped("dd", "if=-", "of=t.raw", "bs=1M", "skip=1", source=content("a.qcow2"))
    assert content("t.raw") == content("a.raw")[1 << 20 :]
    done = piped("dd", "if=a.qcow2", "of=-", "bs=512", "skip=3", "count=100")
    assert done.stdout == content("a.raw")[1536:51200]
    done = piped("dd", "-O", "qcow2", "if=a.raw", "of=-", ok=False)
    assert done.returncode == 1 and b"cairn convert -O qcow2" in done.stderr and done.stdout == b""


def test_nothing_comes(folder):
    for words in (
        ["convert", "-", "t.raw"],
        ["convert", "-", "t.qcow2"],
        ["hash", "-"],
        ["convert", "-f", "qcow2", "-", "t.raw"],
    ):
        done = piped(*words, ok=False)
        assert done.returncode == 1 and b"nothing came from standard input" in done.stderr
        assert os.listdir() == []


def test_an_image_in_a_pipe_refers_to_nothing(disks, qemu):
    qemu("create", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", "o.qcow2")
    done = piped("convert", "-", "t.raw", source=content("o.qcow2"), ok=False)
    assert done.returncode == 1 and b"'standard input'" in done.stderr and b"a.qcow2" in done.stderr
    assert b"/proc" not in done.stderr and not os.path.exists("t.raw")


def test_no_room_for_what_comes(disks, tmp_path):
    with small_file_system(tmp_path / "small", "1m") as small:
        done = piped(
            "convert",
            "-",
            "t.raw",
            source=content("a.qcow2") + os.urandom(2 << 20),
            ok=False,
            env={**os.environ, "TMPDIR": str(small)},
        )
    assert (
        done.returncode == 1 and str(small).encode() in done.stderr and b"Set TMPDIR" in done.stderr
    )
    assert b"standard input" in done.stderr and not os.path.exists("t.raw")


def test_untrusted_pipes(disks, qemu):
    bomb = gzip.compress(content("a.qcow2"))
    piped("convert", "--untrusted", "-", "t.raw", source=bomb)
    assert content("t.raw") == content("a.raw") and not os.path.exists("-")
    done = piped("convert", "--untrusted", "-q", "-O", "qcow2", "-", "-", source=content("a.qcow2"))
    open("u.qcow2", "wb").write(done.stdout)
    qemu("compare", "a.raw", "u.qcow2")
    done = piped(
        "hash",
        "--untrusted",
        "--budget",
        "output=1M",
        "-",
        source=lzma.compress(content("a.qcow2") + bytes(4 << 20)),
        ok=False,
    )
    assert done.returncode == 1 and b"budget" in done.stderr
    for words in ["convert", "-", "bomb.raw"], ["convert", "-O", "raw", "-", "-"], ["hash", "-"]:
        done = piped(
            words[0],
            "--untrusted",
            "--budget",
            "output=1M",
            *words[1:],
            source=gzip.compress(bytes(64 << 20)),
            ok=False,
        )
        assert (
            done.returncode == 1
            and b"which is the budget" in done.stderr
            and not os.path.exists("bomb.raw")
        )
    with open("a.qcow2", "rb") as file:
        subprocess.run([CAIRN, "hash", "--untrusted", "-"], stdin=file, check=True)


# --- standard output ---


def sent(*words):
    done = piped(*words)
    open("sent", "wb").write(done.stdout)
    return done


@pytest.mark.parametrize("source", ["a.raw", "a.qcow2"])
@pytest.mark.parametrize(
    "words, fmt",
    [
        ([], "raw"),
        (["-O", "raw", "-S", "0"], "raw"),
        (["-O", "qcow2"], "qcow2"),
        (["-O", "qcow2", "-o", "compat=0.10"], "qcow2"),
        (["-O", "qcow2", "-o", "cluster_size=512"], "qcow2"),
        (["-O", "qcow2", "-o", "cluster_size=2M"], "qcow2"),
        (["-O", "qcow2", "-o", "extended_l2=on,cluster_size=128k"], "qcow2"),
        (["-O", "qcow2", "-o", "refcount_bits=1"], "qcow2"),
        (["-O", "qcow2", "-S", "0"], "qcow2"),
        (["-O", "qcow2", "-S", "64k"], "qcow2"),
        (["-O", "qcow2", "--salvage"], "qcow2"),
        (["-O", "qcow2", "-o", "lazy_refcounts=on"], "qcow2"),
        (["-O", "qcow2", "-c"], "qcow2"),
        (["-O", "vmdk", "-o", "subformat=streamOptimized"], "vmdk"),
    ],
    ids=lambda value: "-".join(value) or "default" if isinstance(value, list) else value,
)
def test_images_on_standard_output(disks, qemu, cairn, source, words, fmt):
    done = sent("convert", *words, source, "-")
    if fmt == "raw":
        assert done.stdout == content("a.raw")
    qemu("compare", "-f", "raw", "-F", fmt, "a.raw", "sent")
    cairn("compare", "-f", "raw", "-F", fmt, "a.raw", "sent")
    if fmt != "raw":
        cairn("check", "-f", fmt, "sent")
    if fmt == "qcow2":
        qemu("check", "-f", "qcow2", "sent")
        assert not os.path.exists("-")
    assert (b"temporary file in" in done.stderr) == ("-c" in words or "--salvage" in words)


@pytest.mark.parametrize("size", [0, 512, 65536 * 3 + 512, (40 << 20) + 1024])
@pytest.mark.parametrize(
    "words",
    [["-O", "qcow2"], ["-O", "raw"], ["-O", "vmdk", "-o", "subformat=streamOptimized"]],
    ids=["qcow2", "raw", "vmdk"],
)
def test_odd_and_empty_disks(folder, qemu, cairn, size, words):
    if size == 0 and "vmdk" in words:
        assert b"at least one sector" in piped("convert", *words, "/dev/null", "-", ok=False).stderr
        return
    for filled in False, True:
        with open("a.raw", "wb") as file:
            file.write(os.urandom(size) if filled else b"")
            file.truncate(size)
        sent("convert", *words, "a.raw", "-")
        qemu("compare", "-f", "raw", "-F", words[1], "a.raw", "sent")
        if words[1] == "qcow2":
            qemu("check", "sent")


def test_what_the_file_would_be(disks, cairn):
    """Sent or written, the tables say the same."""
    cairn("convert", "-O", "qcow2", "a.qcow2", "file.qcow2")
    sent("convert", "-O", "qcow2", "a.qcow2", "-")
    one, other = (cairn("info", "--output=json", name).json() for name in ("file.qcow2", "sent"))
    for key in "format", "virtual-size", "cluster-size", "format-specific":
        assert one[key] == other[key]


def test_a_large_sparse_disk_takes_tables_only(folder, qemu):
    with open("a.raw", "wb") as file:
        file.truncate(4 << 40)
        for at in 0, 1 << 40, (4 << 40) - 4096:
            file.seek(at)
            file.write(b"data" * 1024)
    begin = time.monotonic()
    sent("convert", "-O", "qcow2", "a.raw", "-")
    assert time.monotonic() - begin < 20 and os.stat("sent").st_size < 40 << 20
    qemu("check", "sent")
    qemu("compare", "-f", "raw", "-F", "qcow2", "a.raw", "sent")


def test_several_sources_and_snapshots(disks, qemu, cairn):
    qemu("snapshot", "-c", "one", "a.qcow2")
    subprocess.run(["qemu-io", "-c", "write -P 7 0 1M", "a.qcow2"], check=True, capture_output=True)
    assert piped("convert", "-l", "one", "a.qcow2", "-").stdout == content("a.raw")
    both = sent("convert", "-O", "qcow2", "a.raw", "a.qcow2", "-")
    cairn("convert", "a.raw", "a.qcow2", "both.raw")
    qemu("compare", "-f", "raw", "-F", "qcow2", "both.raw", "sent")
    assert both.stderr == b""


def test_from_pipe_to_pipe(disks, qemu):
    first = subprocess.Popen(
        [CAIRN, "convert", "-O", "qcow2", "a.raw", "-"], stdout=subprocess.PIPE
    )
    done = subprocess.run(
        [CAIRN, "convert", "-q", "-O", "vmdk", "-o", "subformat=streamOptimized", "-", "-"],
        stdin=first.stdout,
        capture_output=True,
    )
    assert first.wait() == 0 and done.returncode == 0
    open("sent", "wb").write(done.stdout)
    qemu("compare", "a.raw", "sent")


def test_a_file_as_standard_output(disks, qemu):
    for words, fmt in ((["-O", "qcow2"], "qcow2"), ([], "raw")):
        with open("out", "wb") as out:
            subprocess.run([CAIRN, "convert", *words, "a.raw", "-"], stdout=out, check=True)
        qemu("compare", "-F", fmt, "a.raw", "out")
    with open("/dev/full", "wb") as out:
        done = subprocess.run([CAIRN, "convert", "a.raw", "-"], stdout=out, stderr=subprocess.PIPE)
    assert done.returncode == 1 and b"standard output: No space left" in done.stderr


def test_encrypted_image(disks, qemu):
    secret = "secret,id=s,data=abc"
    sent(
        "convert",
        "-O",
        "qcow2",
        "--object",
        secret,
        "-o",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
        "a.raw",
        "-",
    )
    qemu(
        "compare",
        "--object",
        secret,
        "--image-opts",
        "driver=raw,file.filename=a.raw",
        "driver=qcow2,encrypt.key-secret=s,file.filename=sent",
    )


def test_messages_stay_out_of_the_data(disks):
    done = sent("convert", "-p", "--hash", "sha256", "-O", "raw", "a.qcow2", "-")
    assert done.stdout == content("a.raw")
    assert (
        b"(100.00/100%)" in done.stderr
        and hashlib.sha256(content("a.raw")).hexdigest().encode() in done.stderr
    )
    lines = [
        json.loads(line)
        for line in piped("convert", "--progress", "json", "a.qcow2", "-").stderr.splitlines()
    ]
    assert lines[-1]["state"] == "ended" and lines[-1]["done"] == SIZE


@pytest.mark.parametrize(
    "words, told",
    [
        (["-O", "vdi", "a.raw", "-"], "-O raw"),
        (["-O", "vmdk", "a.raw", "-"], "streamOptimized"),
        (["-O", "vhdx", "a.raw", "-"], "Name a file"),
        (["-n", "a.raw", "-"], "-n cannot"),
        (["--verify", "a.raw", "-"], "--verify cannot"),
        (["--for", "aws", "a.raw", "-"], "--for cannot"),
        (["-O", "qcow2", "-o", "preallocation=off,data_file=d", "a.raw", "-"], "data_file"),
        (["-O", "qcow2", "-B", "a.qcow2", "-F", "qcow2", "a.qcow2", "-"], "-B cannot"),
        (["-", "-", "t.raw"], "once"),
        (["--overwrite", "a.raw", "-"], "--overwrite cannot"),
    ],
    ids=str,
)
def test_what_cannot_be_sent(disks, words, told):
    before = sorted(os.listdir())
    done = piped("convert", *words, source=content("a.raw"), ok=False)
    assert done.returncode == 1 and told.encode() in done.stderr and done.stdout == b"", done.stderr
    assert sorted(os.listdir()) == before


def test_other_verbs_want_files(disks):
    for words in (
        ["info", "-"],
        ["map", "-"],
        ["check", "-"],
        ["resize", "-", "1G"],
        ["create", "-", "1M"],
        ["commit", "-"],
        ["measure", "-"],
        ["snapshot", "-l", "-"],
        ["compare", "-", "-"],
    ):
        done = piped(*words, source=content("a.raw"), ok=False)
        assert done.returncode != 0 and b"'-' is standard input" in done.stderr, words
        assert not os.path.exists("-")


def test_a_bitmap_may_have_that_name(disks, cairn):
    cairn("bitmap", "--add", "a.qcow2", "-")
    assert "-" in cairn("bitmap", "--list", "a.qcow2").out


def test_under_qemus_name_it_is_a_file(disks, ours):
    ours("convert", "-O", "raw", "a.qcow2", "-")
    assert content("-") == content("a.raw")
    ours("info", "-")


def test_terminals(disks):
    leader, follower = pty.openpty()
    try:
        done = subprocess.run(
            [CAIRN, "convert", "a.raw", "-"], stdout=follower, stderr=subprocess.PIPE, timeout=20
        )
        assert done.returncode == 1 and b"which is a terminal" in done.stderr
        done = subprocess.run(
            [CAIRN, "convert", "-", "t.raw"], stdin=follower, capture_output=True, timeout=20
        )
        assert done.returncode == 1 and b"which is a terminal" in done.stderr
    finally:
        os.close(leader)
        os.close(follower)


@pytest.mark.parametrize(
    "words",
    [[], ["-O", "qcow2"], ["-O", "vmdk", "-o", "subformat=streamOptimized"], ["-c", "-O", "qcow2"]],
    ids=str,
)
def test_the_reader_goes_away(folder, words):
    with open("a.raw", "wb") as file:
        for _ in range(64):
            file.write(os.urandom(1 << 20))
    process = subprocess.Popen(
        [CAIRN, "convert", *words, "a.raw", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    if "-c" not in words:
        process.stdout.read(100_000)
    process.stdout.close()
    begin = time.monotonic()
    code = process.wait(timeout=20)
    assert (
        code == 1
        and time.monotonic() - begin < 2
        and b"standard output: Broken pipe" in process.stderr.read()
    )


@pytest.mark.parametrize(
    "words, feeds",
    [
        (["convert", "-", "t.raw"], False),
        (["convert", "-", "t.qcow2"], True),
        (["hash", "-"], False),
    ],
    ids=str,
)
def test_interrupted_while_nothing_comes(folder, words, feeds):
    process = subprocess.Popen(
        [CAIRN, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdin.write((b"QFI\xfb" if feeds else b"data") + bytes(100_000))
    process.stdin.flush()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    begin = time.monotonic()
    assert process.wait(timeout=10) == 130 and time.monotonic() - begin < 1.2
    assert os.listdir() == []


def test_interrupted_while_nobody_reads(folder):
    with open("a.raw", "wb") as file:
        file.write(os.urandom(8 << 20))
    process = subprocess.Popen(
        [CAIRN, "convert", "a.raw", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    begin = time.monotonic()
    assert process.wait(timeout=10) == 130 and time.monotonic() - begin < 1.2
