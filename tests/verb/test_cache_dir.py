"""--cache-dir: what is read of images on servers is kept on the local disk."""
# Packages: nginx-light libcurl3-gnutls openssh-server
import json
import os
import signal
import socket
import stat
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest

from conftest import CAIRN, call, line_with
from support.range_server import RangeServer
from support.sshd import Agent, Sshd

MIB = 1024 * 1024
LINK = CAIRN.parent / "compat" / "qemu-img"


class CountingServer(RangeServer):
    """Serves DATA with ranges and ETAG by HTTP; knows how many bytes it sent. `silent` ends all
    answers with data, so that only what is kept can be read."""

    def __init__(self, data, etag='"1"', modified=None):
        self.data, self.etag, self.modified = data, etag, modified
        self.sent, self.asked, self.lock = 0, [], threading.Lock()
        self.delay = 0
        super().__init__()

    def answer(self, peer, head):
        spec = head.split("range: bytes=")[1].split("\r")[0]
        first, last = (int(part) for part in spec.split("-"))
        with self.lock:
            data, last = self.data, min(last, len(self.data) - 1)
            self.asked.append((first, last + 1))
            self.sent += last - first + 1
            lines = [
                "HTTP/1.1 206 Partial Content",
                f"Content-Length: {last - first + 1}",
                f"Content-Range: bytes {first}-{last}/{len(data)}",
            ]
            if self.etag:
                lines.append(f"ETag: {self.etag}")
            if self.modified:
                lines.append(f"Last-Modified: {self.modified}")
        if self.delay:
            time.sleep(self.delay)
        peer.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data[first : last + 1])

    def count(self):
        """How many bytes were sent since the last call."""
        with self.lock:
            sent, self.sent = self.sent, 0
            asked, self.asked = self.asked, []
        self.last_asked = asked
        return sent

    def stop(self):
        self.socket.close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    servers = []

    def start(data, **more):
        servers.append(CountingServer(data, **more))
        return servers[-1]

    yield start
    for each in servers:
        each.stop()


@pytest.fixture
def cairn():
    def run(verb, *words, **more):
        return call(CAIRN, verb, *(["--overwrite"] if verb == "convert" else []), *words, **more)

    return run


def noise(size):
    return os.urandom(size)


def space(directory):
    return sum(each.stat().st_blocks * 512 for each in Path(directory).iterdir())


# What opening asks for, each time.
HEAD = 1024 * 1024


def test_the_second_pass_reads_locally(server, folder, cairn):
    data = noise(8 * MIB + 512)
    web = server(data)
    done = cairn("convert", "--cache-dir", "c", web.url(), "a.raw")
    assert done.err == "" and Path("a.raw").read_bytes() == data
    assert len(data) <= web.count() <= len(data) + HEAD
    assert stat.S_IMODE(os.stat("c").st_mode) == 0o700
    files = list(Path("c").iterdir())
    assert len(files) == 1 and stat.S_IMODE(files[0].stat().st_mode) == 0o600
    cairn("convert", "--cache-dir", "c", web.url(), "b.raw")
    assert Path("b.raw").read_bytes() == data and web.count() <= HEAD
    for words in (["hash"], ["compare", "a.raw"], ["map"]):
        cairn(*words, "--cache-dir", "c", web.url())
        assert web.count() <= HEAD
    # Without the option nothing is read from it.
    cairn("convert", web.url(), "b.raw")
    assert web.count() >= len(data)


def test_serve_and_backing_files(server, folder, cairn):
    data = noise(4 * MIB)
    web = server(data)
    cairn("create", "-q", "-b", web.url(), "-F", "raw", "top.qcow2")
    cairn("io", "-c", "write -P 7 1M 64k", "top.qcow2")
    web.count()
    want = bytearray(data)
    want[MIB : MIB + 65536] = b"\7" * 65536
    for turn in range(2):
        cairn("convert", "--cache-dir", "c", "top.qcow2", "t.raw")
        assert Path("t.raw").read_bytes() == bytes(want)
        sent = web.count()
        assert sent <= HEAD if turn else sent >= len(data) - 65536
    job = subprocess.Popen([CAIRN, "serve", "--cache-dir", "c", "-r", "-k", "s", "top.qcow2"])
    while not Path("s").exists():
        assert job.poll() is None
        time.sleep(0.02)
    cairn("convert", "nbd+unix:///?socket=s", "u.raw")
    job.terminate()
    job.wait(timeout=30)
    assert Path("u.raw").read_bytes() == bytes(want) and web.count() <= HEAD


def test_the_tree_names_it(server, folder, cairn):
    web = server(noise(MIB))
    said = json.loads(cairn("info", "--output", "json", "--cache-dir", "c", web.url()).out)
    text = json.dumps(said)
    assert "disk-cache" in text and said["filename"] == web.url()
    assert "disk-cache" in cairn("info", "--cache-dir", "c", web.url()).out
    cairn("create", "-q", "--cache-dir", "c", "-b", web.url(), "-F", "raw", "top.qcow2")
    assert json.loads(cairn("info", "--output", "json", "top.qcow2").out)["backing-filename"] == (
        web.url()
    )


def test_as_a_node_of_its_own(server, folder, cairn):
    data = noise(4 * MIB)
    web = server(data)
    tree = f"driver=raw,file.driver=disk-cache,file.dir=c,file.cluster=4k,file.size=20M,file.file.driver=http,file.file.url={web.url()}"
    for turn in range(2):
        cairn("convert", "--image-opts", tree, "t.raw")
        assert Path("t.raw").read_bytes() == data
        assert (web.count() <= HEAD) == (turn == 1)
    for bad, text in (
        ("file.cluster=5k", "power of two"),
        ("file.size=1M", "16M"),
        ("file.dir=", "names no directory"),
    ):
        key = bad.split("=")[0]
        words = ",".join(p for p in tree.split(",") if not p.startswith(key + "=")) + "," + bad
        assert text in cairn("info", "--image-opts", words, ok=False).err
    assert "only while they are read" in cairn(
        "io", "--image-opts", tree, "-c", "read 0 1", ok=False
    ).out + (cairn("io", "--image-opts", tree, "-c", "read 0 1", ok=False).err)


def test_a_changed_file_is_read_anew(server, folder, cairn):
    one, two = noise(2 * MIB), noise(2 * MIB)
    web = server(one)
    cairn("convert", "--cache-dir", "c", web.url(), "t.raw")
    web.data, web.etag = two, '"2"'
    cairn("convert", "--cache-dir", "c", web.url(), "t.raw")
    assert Path("t.raw").read_bytes() == two
    # The other state is of no use any more.
    assert len(list(Path("c").iterdir())) == 1
    # The same tag with another length is another state too.
    web.data = two[:MIB]
    cairn("convert", "--cache-dir", "c", web.url(), "t.raw")
    assert Path("t.raw").read_bytes() == two[:MIB]


def test_a_change_in_between(server, folder, cairn):
    one, two = noise(4 * MIB), noise(4 * MIB)
    web = server(one)
    cairn("io", "-r", "--cache-dir", "c", "-f", "raw", "-c", "read 0 2M", web.url())
    script = subprocess.Popen(
        [CAIRN, "io", "-r", "--cache-dir", "c", "-f", "raw", web.url()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    script.stdin.write("read 0 64k\n")
    script.stdin.flush()
    line_with(script, "read 65536/65536")
    web.data, web.etag = two, '"2"'
    out, _ = script.communicate("read 3M 64k\nquit\n", timeout=60)
    assert "changed on the server" in out or "failed" in out
    cairn("convert", "--cache-dir", "c", web.url(), "t.raw")
    assert Path("t.raw").read_bytes() == two


@pytest.mark.parametrize(
    "etag, age, kept",
    [(None, 3600, True), (None, 5, False), ('W/"1"', 3600, True), ('"1"', 5, True)],
    ids=["old date", "new date", "weak tag and date", "tag"],
)
def test_what_identifies_a_file(server, folder, cairn, etag, age, kept):
    data = noise(2 * MIB)
    when = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() - age))
    web = server(data, etag=etag, modified=when)
    for _ in range(2):
        web.count()
        cairn("convert", "--cache-dir", "c", web.url(), "t.raw")
        assert Path("t.raw").read_bytes() == data
        sent = web.count()
    assert (sent <= HEAD) == kept


def test_without_an_identity(server, folder, cairn):
    web = server(noise(2 * MIB), etag=None)
    for _ in range(2):
        done = cairn("convert", "--cache-dir", "c", web.url(), "t.raw")
        assert "does not say when the disk changes" in done.err and web.count() >= 2 * MIB
    cairn("convert", "--cache-dir", "c", "--cache-trust-name", web.url(), "t.raw")
    web.count()
    assert cairn("convert", "--cache-dir", "c", "--cache-trust-name", web.url(), "t.raw").err == ""
    assert web.count() <= HEAD


def test_nbd_by_its_name(folder, cairn):
    Path("a.raw").write_bytes(noise(2 * MIB))
    job = subprocess.Popen([CAIRN, "serve", "-r", "-f", "raw", "-k", "s", "a.raw"])
    try:
        while not Path("s").exists():
            assert job.poll() is None
            time.sleep(0.02)
        name = "nbd+unix:///?socket=s"
        assert "is not cached" in cairn("convert", "--cache-dir", "c", name, "t.raw").err
        words = ["convert", "--cache-dir", "c", "--cache-trust-name", name, "t.raw"]
        assert cairn(*words).err == ""
        old = Path("a.raw").read_bytes()
        Path("a.raw").write_bytes(noise(2 * MIB))
        # That is what the option means: what is kept counts, whatever the server has.
        cairn(*words)
        assert Path("t.raw").read_bytes() == old
    finally:
        job.terminate()
        job.wait(timeout=30)


def test_ssh_by_the_time_of_the_last_change(folder, cairn, tmp_path_factory):
    sshd = Sshd(tmp_path_factory.mktemp("sshd"))
    agent = Agent(tmp_path_factory.mktemp("agent"), sshd.folder / "user_key")
    disk = folder / "a.raw"
    words = ["convert", "-f", "raw", "--cache-dir", "c", sshd.url(disk), "t.raw"]
    more = {"env": {**os.environ, "SSH_AUTH_SOCK": str(agent.path)}}
    try:
        one, two = noise(2 * MIB), noise(2 * MIB)
        when = int(time.time()) - 3600
        for data, time_of_change, seen in (
            (one, when, one),
            # With the same time nothing but what is kept can have been read.
            (two, when, one),
            (two, when + 1, two),
            # What changed just now is not cached.
            (one, int(time.time()), one),
            (two, int(time.time()), two),
        ):
            disk.write_bytes(data)
            os.utime(disk, (time_of_change, time_of_change))
            assert cairn(*words, **more).err == ""
            assert Path("t.raw").read_bytes() == seen
        assert len(list(Path("c").iterdir())) == 1
    finally:
        agent.stop()
        sshd.stop()


def test_holes_are_cheap(server, folder, cairn):
    data = bytes(64 * MIB - MIB) + noise(MIB)
    web = server(data)
    cairn("convert", "--cache-dir", "c", web.url(), "t.raw")
    assert space("c") < 2 * MIB
    web.count()
    cairn("convert", "--cache-dir", "c", web.url(), "t.raw")
    assert Path("t.raw").read_bytes() == data and web.count() <= HEAD


def test_little_is_read_for_little(server, folder, cairn):
    web = server(noise(16 * MIB))
    reads = [part for i in range(1, 8) for part in ("-c", f"read {2 * i * MIB} 4k")]
    cairn("io", "-r", "-f", "raw", "--cache-dir", "c", *reads, web.url())
    assert web.count() <= HEAD + 7 * (64 + 256) * 1024


def test_concurrent_readers_of_one_range(server, folder, cairn):
    web = server(noise(8 * MIB))
    web.delay = 0.3
    reads = [part for i in range(16) for part in ("-c", f"aio_read {4 * MIB + 4096 * i} 4k")]
    cairn("io", "-r", "-f", "raw", "--cache-dir", "c", *reads, "-c", "aio_flush", web.url())
    parts = sorted(part for part in web.asked if part[0] >= MIB)
    assert all(a[1] <= b[0] for a, b in zip(parts, parts[1:])), parts


def test_several_processes(server, folder, cairn):
    data = noise(16 * MIB)
    web = server(data)
    jobs = [
        subprocess.Popen([CAIRN, "convert", "--cache-dir", "c", web.url(), f"{i}.raw"])
        for i in range(4)
    ]
    assert [job.wait(timeout=120) for job in jobs] == [0] * 4
    assert all(Path(f"{i}.raw").read_bytes() == data for i in range(4))
    web.count()
    cairn("convert", "--cache-dir", "c", web.url(), "t.raw")
    assert Path("t.raw").read_bytes() == data and web.count() <= HEAD


def test_the_oldest_goes_first(server, folder, cairn):
    webs = [server(noise(12 * MIB), etag=f'"{i}"') for i in range(3)]
    words = ["--cache-dir", "c", "--cache-size", "32M"]

    def read(i):
        cairn("convert", *words, webs[i].url(), "t.raw")
        assert Path("t.raw").read_bytes() == webs[i].data
        assert space("c") <= 32 * MIB
        return webs[i].count()

    read(0), read(1)
    assert read(0) <= HEAD
    read(2)
    assert read(0) <= HEAD and read(1) >= MIB


def test_an_image_that_is_larger_than_the_cache(server, folder, cairn):
    data = noise(48 * MIB)
    web = server(data)
    for _ in range(2):
        cairn("convert", "--cache-dir", "c", "--cache-size", "16M", web.url(), "t.raw")
        assert Path("t.raw").read_bytes() == data and space("c") <= 18 * MIB


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT], ids=str)
def test_killed_at_any_time(server, folder, cairn, signum):
    data = noise(16 * MIB)
    web = server(data)
    for turn in range(3):
        job = subprocess.Popen(
            [CAIRN, "convert", "--cache-dir", "c", web.url(), "t.raw"], stderr=subprocess.DEVNULL
        )
        while web.sent < (turn + 1) * 4 * MIB and job.poll() is None:
            time.sleep(0.002)
        job.send_signal(signum)
        job.wait(timeout=60)
        web.count()
        done = cairn("compare", "--cache-dir", "c", web.url(), web.url(), ok=None)
        assert done.code == 0
        Path("t.raw").unlink(missing_ok=True)
        for each in Path("c").iterdir():
            with open(each, "r+b") as file:
                file.seek(4096 + 8 * 100)
                file.write(bytes(8 * 300))
    cairn("convert", "--cache-dir", "c", web.url(), "t.raw")
    assert Path("t.raw").read_bytes() == data


def damage(path, at, value):
    with open(path, "r+b") as file:
        file.seek(at)
        old = file.read(len(value)) if value is not None else b""
        file.seek(at)
        file.write(value if value is not None else bytes(len(old)))


DAMAGES = {
    "empty": lambda path: os.truncate(path, 0),
    "short": lambda path: os.truncate(path, 5000),
    "longer": lambda path: os.truncate(path, path.stat().st_size + 4096),
    "magic": lambda path: damage(path, 0, b"X"),
    "length": lambda path: damage(path, 16, b"\xff" * 8),
    "cluster bits": lambda path: damage(path, 12, b"\xff" * 4),
    "key": lambda path: damage(path, 40, b"0000"),
    "noise": lambda path: path.write_bytes(os.urandom(100_000)),
    "entries": lambda path: damage(path, 4096, os.urandom(8 * 64)),
    "entries of others": lambda path: damage(path, 4096, path.read_bytes()[4104:4600]),
    "zero entries": lambda path: damage(path, 4096, struct.pack("<Q", 2 << 32) * 64),
    "data": lambda path: damage(path, path.stat().st_size - 3 * MIB, os.urandom(MIB)),
    "no data": lambda path: damage(path, path.stat().st_size - 3 * MIB, bytes(2 * MIB)),
    "times": lambda path: damage(path, 4096 + 8 * 64, b"\xff" * 8),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
    "a link": lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "unreadable": lambda path: (path.unlink(), path.symlink_to(path.name)),
}


@pytest.mark.parametrize("kind", DAMAGES, ids=str)
def test_damaged_files(server, folder, cairn, kind):
    data = noise(4 * MIB)
    web = server(data)
    cairn("convert", "--cache-dir", "c", web.url(), "t.raw")
    (path,) = Path("c").iterdir()
    DAMAGES[kind](path)
    for _ in range(2):
        cairn("convert", "--cache-dir", "c", web.url(), "t.raw")
        assert Path("t.raw").read_bytes() == data
    assert "root" in Path("/etc/passwd").read_text()


def test_strange_files_in_the_directory(server, folder, cairn):
    data = noise(2 * MIB)
    web = server(data)
    Path("c").mkdir(mode=0o700)
    Path("c/notes.txt").write_text("mine")
    Path("c/x.cache").write_bytes(noise(9000))
    Path("c/y.new").write_bytes(b"")
    os.utime("c/y.new", (1, 1))
    cairn("convert", "--cache-dir", "c", web.url(), "t.raw")
    names = {each.name for each in Path("c").iterdir()}
    assert "notes.txt" in names and not names & {"x.cache", "y.new"} and len(names) == 2


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722])
def test_a_directory_of_others_is_refused(server, folder, cairn, mode):
    web = server(noise(MIB))
    Path("c").mkdir()
    Path("c").chmod(mode)
    done = cairn("info", "--cache-dir", "c", web.url(), ok=False)
    assert done.code == 1 and "'c' can be written to by others" in done.err
    assert "chmod 700" in done.err


def test_where_nothing_can_be_kept(server, folder, cairn):
    data = noise(2 * MIB)
    web, other = server(data), server(data)
    Path("file").write_text("")
    for bad in ("file", "missing/c", "/proc/c"):
        done = cairn("compare", "--cache-dir", bad, web.url(), other.url())
        assert done.err.count("warning") == 1 and f"the cache '{bad}' is not used" in done.err


def test_a_full_disk(server, folder, cairn):
    data = noise(8 * MIB)
    web = server(data)
    # A limit on the size of files has the effect of a disk that fills up.
    limit = 'ulimit -f 4096; trap \'\' XFSZ; exec "$0" hash --cache-dir c "$1"'
    done = subprocess.run(
        ["bash", "-c", limit, CAIRN, web.url()], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and done.stderr.count("warning") == 1, done.stderr
    assert "is not used" in done.stderr


def test_credentials_are_not_kept(server, folder, cairn):
    web = server(noise(MIB))
    cairn("convert", "--cache-dir", "c", web.url("me:topsecret@") + "?sig=geheim", "t.raw")
    (path,) = Path("c").iterdir()
    head = path.read_bytes()[:4096]
    assert b"127.0.0.1" in head and b"topsecret" not in head and b"geheim" not in head


def test_local_files_are_not_cached(folder, cairn):
    cairn("create", "-q", "a.raw", "1M")
    cairn("convert", "--cache-dir", "c", "a.raw", "t.raw")
    assert not Path("c").exists()


def test_wrong_options(folder, cairn):
    for words, text in (
        (["--cache-size", "1G"], "--cache-size belongs to --cache-dir"),
        (["--cache-trust-name"], "--cache-trust-name belongs to --cache-dir"),
        (["--cache-dir", ""], "needs the name of a directory"),
        (["--cache-dir", "c", "--cache-size", "1M"], "cache size"),
    ):
        for verb in (["info"], ["serve", "-r"]):
            assert text in cairn(*verb, *words, "a.raw", ok=False).err
    done = call(LINK, "info", "--cache-dir", "c", "a.raw", ok=False)
    assert "cache-dir" in done.err
