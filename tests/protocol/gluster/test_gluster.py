"""Files of a real GlusterFS volume, and of a library that lies."""
# Packages: glusterfs-server glusterfs-client libgfapi0 iproute2
import contextlib
import json
import os
import random
import signal
import subprocess
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conftest import CAIRN, Result, sparse_disk
from support.failing_convert import check_failing_convert
from support.glusterd import Gluster
from support.qmp import create_over_stdio

pytestmark = pytest.mark.any_engine
# Connections stay until the process ends, and so does what a request without an answer has. A
# sanitizer wraps the functions of this library, and finds them only when it is loaded at the start.
NO_LEAKS = {"ASAN_OPTIONS": "detect_leaks=0", "LD_PRELOAD": "libtirpc.so.3"}


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    one = Gluster(tmp_path_factory.mktemp("gluster"))
    yield one
    one.stop()


def within(volume, tool):
    def run(*words, ok=True, **more):
        done = subprocess.run(
            volume.inside(
                "env", *(f"{key}={value}" for key, value in NO_LEAKS.items()), tool, *words
            ),
            capture_output=True,
            text=True,
            timeout=100,
            **more,
        )
        # The library's own lines.
        said = [line for line in done.stderr.splitlines(True) if not line.startswith("[20")]
        done.stderr = "".join(said)
        assert not ok or done.returncode == 0, (words, done.stdout, done.stderr)
        return Result(done)

    return run


@pytest.fixture
def cairn(volume):
    return within(volume, CAIRN)


def described(volume, path, **more):
    servers = [
        {"type": "tcp", "host": volume.address, "port": 24007},
        {"type": "unix", "socket": "/var/run/glusterd.socket"},
    ]
    return "json:" + json.dumps(
        {"driver": "gluster", "volume": "testvol", "path": path, "server": servers, **more}
    )


def test_every_byte(volume, folder, cairn):
    sparse_disk("disk.raw", 9 << 20, seed=3, pieces=60)
    there = volume.brick / "bytes.raw"
    begun = time.monotonic()
    cairn("convert", "-O", "raw", folder / "disk.raw", volume.url("bytes.raw"))
    # Not the ten seconds of the library's farewell.
    assert time.monotonic() - begun < 9
    assert there.read_bytes() == (folder / "disk.raw").read_bytes()
    assert there.stat().st_mode & 0o777 == 0o600
    cairn("convert", "-f", "raw", "-O", "raw", volume.url("bytes.raw"), folder / "back.raw")
    assert (folder / "back.raw").read_bytes() == there.read_bytes()
    cairn(
        "io",
        *("-f", "raw"),
        *("-c", "write -P 7 10 1000"),
        *("-c", "write -P 8 4097 70001"),
        *("-c", "write -z 1M 2M"),
        *("-c", "discard 4M 1M"),
        *("-c", "flush"),
        *("-c", "read -P 7 10 1000"),
        *("-c", "read -P 8 4097 70001"),
        *("-c", "read -P 0 1M 2M"),
        volume.url("bytes.raw"),
    )
    data = there.read_bytes()
    assert data[10:1010] == b"\7" * 1000 and data[4097:74098] == b"\10" * 70001
    assert data[1 << 20 : 3 << 20] == bytes(2 << 20)
    cairn("io", "-t", "none", "-f", "raw", "-c", "read -P 7 10 1000", volume.url("bytes.raw"))


def test_images(volume, folder, cairn):
    """An image with a backing file beside it; every preallocation; grown and shrunk; holes are found."""
    cairn("create", "-f", "qcow2", volume.url("base.qcow2"), "8M")
    cairn("io", "-c", "write -P 5 0 1M", volume.url("base.qcow2"))
    cairn("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", volume.url("over.qcow2"))
    cairn("io", "-c", "write -P 6 1M 1M", "-c", "read -P 5 0 1M", volume.url("over.qcow2"))
    assert "No errors" in cairn("check", volume.url("over.qcow2")).out
    cairn("convert", "-O", "raw", volume.url("over.qcow2"), folder / "flat.raw")
    data = (folder / "flat.raw").read_bytes()
    assert data == b"\5" * (1 << 20) + b"\6" * (1 << 20) + bytes(6 << 20)
    for mode, least in ("off", 0), ("falloc", 2 << 20), ("full", 2 << 20):
        option = f"preallocation={mode}"
        cairn("create", "-f", "raw", "-o", option, volume.url(f"{mode}.raw"), "2M")
        status = (volume.brick / f"{mode}.raw").stat()
        assert status.st_size == 2 << 20 and status.st_blocks * 512 >= least
        cairn("resize", "-f", "raw", f"--{option}", volume.url(f"{mode}.raw"), "3M")
        assert (volume.brick / f"{mode}.raw").read_bytes() == bytes(3 << 20)
    refused = cairn("create", "-f", "raw", volume.url("off.raw"), "2M", ok=False)
    assert refused.code == 1 and "exists already" in refused.err
    cairn("resize", "-f", "raw", "--shrink", volume.url("off.raw"), "1M")
    cairn("io", "-f", "raw", "-c", "write -P 1 256k 64k", volume.url("off.raw"))
    runs = cairn("map", "-f", "raw", "--output", "json", volume.url("off.raw")).json()
    kept = [(each["start"], each["length"]) for each in runs if each["data"]]
    assert kept == [(256 << 10, 64 << 10)]


def test_the_examples_of_the_manual(volume, folder, cairn):
    """Every spelling of the chapter on GlusterFS in qemu-block-drivers(7)."""
    (volume.brick / "dir").mkdir(exist_ok=True)
    cairn("create", "-f", "qcow2", volume.url("dir/a.img"), "4M")
    at = f"{volume.address}:24007"
    for name in (
        f"gluster://{volume.address}/testvol/dir/a.img",
        f"gluster+tcp://{volume.address}/testvol/dir/a.img",
        f"gluster+tcp://{at}/testvol/dir/a.img",
        f"gluster+tcp://[{volume.address}]:24007/testvol/dir/a.img",
        "gluster+unix:///testvol/dir/a.img?socket=/var/run/glusterd.socket",
        json.dumps({"driver": "qcow2", "file": json.loads(described(volume, "dir/a.img")[5:])}),
    ):
        name = "json:" + name if name.startswith("{") else name
        assert cairn("info", "--output", "json", name).json()["virtual-size"] == 4 << 20
    log = folder / "log"
    dotted = (
        "driver=qcow2,file.driver=gluster,file.volume=testvol,file.path=/dir/a.img,"
        f"file.debug=9,file.logfile={log},file.server.0.type=tcp,file.server.0.host={volume.address},"
        "file.server.0.port=24007,file.server.1.type=unix,file.server.1.socket=/var/run/glusterd.socket"
    )
    said = cairn("info", "--image-opts", dotted)
    assert "4 MiB" in said.out and log.stat().st_size > 1000
    said = cairn("info", f"gluster+rdma://{at}/testvol/dir/a.img")
    assert "4 MiB" in said.out and "rdma is no longer a transport" in said.err
    # Nothing is said that was not asked for; the second server serves where the first is away.
    done = subprocess.run(
        volume.inside(CAIRN, "info", volume.url("dir/a.img")),
        capture_output=True,
        text=True,
        env={**os.environ, **NO_LEAKS},
    )
    assert done.stderr == ""
    away = described(volume, "dir/a.img").replace('"port": 24007', '"port": 1')
    assert cairn("info", away).code == 0


def test_as_the_real_one(volume, folder):
    """Word for word but for the note that the driver is deprecated. A run of QEMU takes ten seconds: all at once."""
    ours = within(volume, CAIRN.parent / "compat" / "qemu-img")
    qemu = within(volume, "qemu-img")
    ours("create", "-f", "raw", "-o", "preallocation=full", volume.url("full.img"), "4M")
    with open(volume.brick / "data.img", "wb") as out:
        out.truncate(4 << 20)
        for at in 1 << 20, 3 << 20:
            out.seek(at)
            out.write(b"x" * (256 << 10))
        os.fsync(out.fileno())
    options = "driver=gluster,volume=testvol,path=/full.img"
    first = f"server.0.type=inet,server.0.host={volume.address}"
    lines = [
        ["info", volume.url("full.img")],
        ["info", "--output=json", volume.url("full.img")],
        ["info", described(volume, "full.img", logfile="/dev/null")],
        ["info", "--image-opts", f"{options},{first},server.0.port=24007"],
        ["map", "--output=json", "-f", "raw", volume.url("data.img")],
        ["create", "-f", "raw", "-o", "preallocation=bogus", volume.url("no.img"), "4M"],
        ["resize", "-f", "raw", "--preallocation=metadata", volume.url("full.img"), "8M"],
        ["info", volume.url("none.img")],
        ["info", volume.url("none.img").replace("testvol", "novol")],
        ["info", f"gluster://{volume.address}:1/testvol/none.img"],
        ["info", f"gluster://{volume.address}/testvol"],
        ["info", f"gluster://{volume.address}/testvol/"],
        ["info", volume.url("a?x=1")],
        ["info", "gluster+unix://h/testvol/a?socket=/x"],
        ["info", "gluster:foo"],
        ["info", "--image-opts", options],
        ["info", "--image-opts", f"{options},{first}"],
        ["info", "--image-opts", f"{options},server.0.type=inet,server.0.port=1"],
        ["info", "--image-opts", f"{options},server.0.type=unix"],
        ["info", "--image-opts", f"{options},server.0.type=unix,server.0.path=a,server.0.socket=b"],
        ["info", "--image-opts", f"{options},server.0.host=h"],
        ["info", "--image-opts", f"{options},server.0.type=foo,server.0.host=h"],
        ["info", "--image-opts", f"{options},{first},server.0.port=1,server.0.ipv4=on"],
    ]
    with ThreadPoolExecutor(len(lines)) as pool:
        theirs = list(pool.map(lambda words: qemu(*words, ok=False), lines))
    for words, real in zip(lines, theirs):
        mine = ours(*words, ok=False)
        said = real.err.replace("qemu-img: warning: 'gluster' is deprecated\n", "")
        assert (mine.code, mine.out, mine.err) == (real.code, real.out, said), words


def test_a_failed_conversion(volume, folder, cairn):
    check_failing_convert(cairn, folder, volume.url, volume.brick)


def test_refused(volume, cairn):
    for name, words in (
        (f"gluster://{volume.address}:70000/testvol/a", "invalid URI"),
        ("gluster+http://h/testvol/a", "gluster+http"),
        (f"gluster://{volume.address}/testvol/a%00b", "invalid URI"),
        (described(volume, "none.img"), "No such file or directory"),
    ):
        failed = cairn("info", name, ok=False)
        assert failed.code == 1 and words in failed.err
    # A directory, and what untrusted work may not reach.
    (volume.brick / "dir2").mkdir(exist_ok=True)
    for more, name in ([], "dir2"), (["--untrusted"], "full.img"):
        assert cairn("info", *more, volume.url(name), ok=False).code == 1


def test_a_brick_dies(tmp_path_factory, folder):
    """Killed while a copy runs: an error, within the time that was given."""
    one = Gluster(tmp_path_factory.mktemp("dies"))
    try:
        with open(one.brick / "disk.raw", "wb") as out:
            out.write(random.Random(1).randbytes(100 << 20))
        job = subprocess.Popen(
            one.inside(
                CAIRN,
                *("convert", "-f", "raw", "-O", "raw", "-r", "20M"),
                *(one.url("disk.raw"), folder / "out.raw"),
            ),
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **NO_LEAKS},
        )
        until = time.monotonic() + 30
        while not (os.path.exists("out.raw") and os.stat("out.raw").st_blocks > 4096):
            assert job.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        # As XML: lines of the table for people wrap where names are long.
        status = ElementTree.fromstring(one.admin("volume", "status", "testvol", "--xml"))
        brick = next(
            node for node in status.iter("node") if node.findtext("path") == str(one.brick)
        )
        os.kill(int(brick.findtext("pid")), signal.SIGKILL)
        _, said = job.communicate(timeout=60)
        assert job.returncode == 1 and "not connected" in said
    finally:
        one.stop()


# --- a library that lies ---

DATA = random.Random(1).randbytes(3 << 20)
# What it does, and words of the error; no words: every byte arrives.
READING = {
    "good": "",
    "short": "",
    "reversed": "",
    "same_thread": "",
    "seek_data_at_end": "",
    "seek_fails": "",
    "seek_back": "",
    "seek_far": "",
    "empty": "before its size",
    "more": "more than was asked for",
    "most": "more than was asked for",
    "fails": "Input/output error",
    "fails_without_reason": "Input/output error",
    "disconnected": "not connected",
    "not_taken": "Cannot allocate memory",
    "shrunk": "before its size",
    "negative": "a size of -5 bytes",
    "directory": "no regular file",
    "no_size": "Input/output error",
    "stall_init": "timed out",
    "stall_open": "timed out",
    "stall_read": "does not answer",
    "no_errno": "failed to connect",
    "no_volume": "failed to connect",
    "no_new": "failed to connect",
    "no_logging": "failed to connect",
}
WRITING = {
    "good": "",
    "writes_less": "",
    "no_zero": "",
    "no_discard": "",
    "same_thread": "",
    "stall_write": "does not answer",
    "writes_nothing": "wrote 0 bytes",
    "writes_more": "bytes of",
    "quota": "No space left on device",
    "close_fails": "Input/output error",
}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    made = tmp_path_factory.mktemp("library")
    source = Path(__file__).parent / "odd_gfapi.c"
    subprocess.run(
        [
            "g++-12",
            "-xc",
            "-D_GNU_SOURCE",
            "-shared",
            "-fPIC",
            "-o",
            made / "libgfapi.so.0",
            source,
        ],
        check=True,
    )
    return made


@pytest.fixture
def odd(library, folder, monkeypatch):
    (folder / "there.raw").write_bytes(DATA)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
    for key, value in NO_LEAKS.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("GF_FILE", str(folder / "there.raw"))
    name = described_by_one(timeout=2)

    def start(behaviour):
        monkeypatch.setenv("GF_ODD", behaviour)
        return name

    return start


def described_by_one(**more):
    server = [{"type": "inet", "host": "h", "port": 1}]
    file = {"driver": "gluster", "volume": "v", "path": "p", "server": server, **more}
    return "json:" + json.dumps({"driver": "raw", "file": file})


def run_small(*words):
    """Runs cairn and sees that it stays small."""
    done = subprocess.run(
        ["/usr/bin/time", "-q", "-o", "memory", "-f", "%M", CAIRN, *words],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "asan" not in str(CAIRN):
        assert int(open("memory").read().split()[-1]) < 64 << 10
    assert done.returncode in (0, 1), done.stderr
    return done


@pytest.mark.parametrize("behaviour", READING)
def test_reading(odd, folder, behaviour):
    done = run_small("convert", "-f", "raw", "-O", "raw", odd(behaviour), "out.raw")
    assert READING[behaviour] in done.stderr
    assert (done.returncode == 0) == (READING[behaviour] == ""), done.stderr
    if done.returncode == 0:
        assert (folder / "out.raw").read_bytes() == DATA


@pytest.mark.parametrize("behaviour", WRITING)
def test_writing(odd, folder, behaviour):
    other = DATA[: 1 << 20] + bytes(1 << 20) + DATA[2 << 20 :]
    (folder / "source.raw").write_bytes(other)
    done = run_small("convert", "-n", "-f", "raw", "-O", "raw", "source.raw", odd(behaviour))
    assert WRITING[behaviour] in done.stderr
    assert (done.returncode == 0) == (WRITING[behaviour] == ""), done.stderr
    if done.returncode == 0:
        assert (folder / "there.raw").read_bytes() == other


@pytest.mark.parametrize("behaviour", ["flush_fails", "stall_flush"])
def test_nothing_is_done_after_a_flush_that_failed(odd, behaviour):
    steps = ["-c", "write 0 64k", "-c", "flush", "-c", "read 0 64k", "-c", "write 0 64k"]
    done = run_small("io", "-t", "writeback", "-f", "raw", *steps, odd(behaviour))
    text = done.stdout + done.stderr
    assert text.count("wrote 65536") == 1 and "read 65536" not in text
    assert "write failed: Input/output error" in text


def test_discard_and_zeroes(odd, folder):
    name = odd("no_zero")
    steps = ["-c", "write -z 0 64k", "-c", "discard 64k 64k", "-c", "read -P 0 0 64k"]
    assert "failed" not in run_small("io", "-f", "raw", *steps, name).stdout
    assert (folder / "there.raw").read_bytes()[: 64 << 10] == bytes(64 << 10)


def test_a_library_without_a_function(odd, folder, library, monkeypatch):
    bare = folder / "bare"
    bare.mkdir()
    (bare / "x.c").write_text("int glfs_close(void) { return 0; }")
    words = ["g++-12", "-xc", "-shared", "-o", bare / "libgfapi.so.0", bare / "x.c"]
    subprocess.run(words, check=True)
    name = odd("good")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(bare))
    assert "libgfapi has no function glfs_creat" in run_small("info", name).stderr


def threads_of(pid):
    """The names of its threads, which come and go."""
    names = set()
    for each in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            names.add(Path(each, "comm").read_text().strip())
    return names


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("behaviour", ["stall_init", "stall_open", "stall_read"])
def test_interrupted(odd, folder, behaviour, which):
    odd(behaviour)
    name = described_by_one(timeout=50)
    job = subprocess.Popen(
        [CAIRN, "convert", "-f", "raw", "-O", "raw", name, "out.raw"], stderr=subprocess.PIPE
    )
    # The library's threads are there once it was asked.
    until = time.monotonic() + 30
    while "cairn-watch" not in threads_of(job.pid):
        assert job.poll() is None and time.monotonic() < until
        time.sleep(0.02)
    begun = time.monotonic()
    job.send_signal(which)
    job.communicate(timeout=30)
    assert job.returncode == 128 + which and time.monotonic() - begun < 3


def test_made_by_the_daemon(volume):
    location = {
        "volume": "testvol",
        "path": "job.raw",
        "server": [{"type": "inet", "host": volume.address, "port": "24007"}],
    }
    environment = [f"{key}={value}" for key, value in NO_LEAKS.items()]
    for program in (CAIRN.parent / "compat/qemu-storage-daemon", "qemu-storage-daemon"):
        command = volume.inside("env", *environment, program)
        what = {"driver": "gluster", "location": location, "size": 4 << 20}
        assert create_over_stdio(command, **what, preallocation="full") is None
        made = volume.brick / "job.raw"
        assert made.stat().st_size == 4 << 20 and made.stat().st_blocks >= (4 << 20) // 512
        made.unlink()
