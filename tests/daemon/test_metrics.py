"""`cairn daemon --metrics`: the numbers are right, the page is true, and clients cannot do harm."""
import http.client
import json
import os
import re
import socket
import subprocess
import time
from collections import defaultdict

import pytest
from conftest import CAIRN, TOP
from qmp import LIMIT, Daemon, wait_for

pytestmark = pytest.mark.any_engine

OURS = [CAIRN, "daemon"]
COMPAT = CAIRN.parent / "compat" / "qemu-storage-daemon"
SIZE = 4 << 20

LINE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)+)\})? ([0-9.]+|\+Inf)')
LABEL = re.compile(r'([a-z]+)="((?:[^"\\]|\\.)*)"')


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=LIMIT)
        self.path = str(path)

    def connect(self):
        # The file of a socket is there before anybody listens.
        until = time.monotonic() + LIMIT
        while True:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(LIMIT)
            try:
                return self.sock.connect(self.path)
            except ConnectionRefusedError:
                self.sock.close()
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)


class Metrics:
    """One answer: each line is read, and must be as the text format says."""

    def __init__(self, text):
        self.values, self.types, self.helps = {}, {}, {}
        name = None
        assert text.endswith("\n")
        for line in text.splitlines():
            if line.startswith("# HELP "):
                name, self.helps[name] = line[7:].split(" ", 1)[0], line
                assert name not in self.types
            elif line.startswith("# TYPE "):
                typed, kind = line[7:].split(" ")
                assert typed == name and kind in ("counter", "gauge", "histogram")
                self.types[name] = kind
            else:
                found = LINE.fullmatch(line)
                assert found, line
                endings = ("", "_bucket", "_sum", "_count")
                allowed = endings if self.types[name] == "histogram" else ("",)
                assert found[1] in [name + ending for ending in allowed], line
                key = (found[1], *sorted(LABEL.findall(found[2] or "")))
                assert key not in self.values, line
                self.values[key] = float(found[3])

    def get(self, name, **labels):
        return self.values[(name, *sorted(labels.items()))]

    def all(self, name, label):
        """{label: value} of the samples of NAME."""
        return {dict(key[1:])[label]: value for key, value in self.values.items() if key[0] == name}


def fetch(connection):
    connection.request("GET", "/metrics")
    reply = connection.getresponse()
    assert reply.status == 200
    assert reply.getheader("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
    return Metrics(reply.read().decode())


def somebody_listens(path):
    """The file of a socket is there before."""
    with socket.socket(socket.AF_UNIX) as attempt:
        return attempt.connect_ex(str(path)) == 0


@pytest.fixture
def started(tmp_path):
    """A daemon with a disk that is exported, and metrics on a socket."""
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "d.qcow2", str(SIZE)],
        cwd=tmp_path,
        check=True,
        timeout=LIMIT,
    )
    words = ["--blockdev", "qcow2,node-name=disk,file.driver=file,file.filename=d.qcow2"]
    words += ["--nbd-server", "addr.type=unix,addr.path=nbd.sock"]
    words += ["--export", "nbd,id=e,node-name=disk,name=disk,writable=on"]
    words += ["--metrics", "addr.type=unix,addr.path=m.sock"]
    with Daemon(OURS, *words, directory=tmp_path) as daemon:
        wait_for(lambda: somebody_listens(tmp_path / "m.sock"))
        yield daemon


def use(directory, *commands, options=()):
    words = [word for command in commands for word in ("-c", command)]
    uri = f"nbd+unix:///disk?socket={directory}/nbd.sock"
    done = subprocess.run(
        ["qemu-io", *options, "-f", "raw", *words, uri],
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    return done.returncode, done.stdout + done.stderr


def requests(metrics, what, name):
    """{kind: (requests, bytes)}"""
    result = {}
    for kind in ("read", "write", "zero", "discard", "flush"):
        count = metrics.get(f"cairn_{what}_requests_total", request=kind, **{what: name})
        size = 0
        if kind != "flush":
            size = metrics.get(f"cairn_{what}_request_bytes_total", request=kind, **{what: name})
        result[kind] = (count, size)
    return result


def test_counters_are_right_after_known_requests(started):
    connection = UnixConnection(started.directory / "m.sock")
    before = fetch(connection)
    assert set(requests(before, "export", "e").values()) == {(0, 0)}
    commands = ["write 0 64k", "write 1M 4k", "read 0 128k", "write -z 2M 64k", "discard 3M 1M"]
    code, text = use(started.directory, *commands)
    assert code == 0, text
    # A request is counted before its reply is sent, but for the last flush: the client does not wait.
    wait_for(lambda: fetch(connection).get("cairn_nbd_clients") == 0)
    after = fetch(connection)
    for what, name in (("export", "e"), ("node", "disk")):
        done = requests(after, what, name)
        assert done["write"] == (2, (64 + 4) << 10)
        assert done["read"] == (1, 128 << 10)
        assert done["zero"] == (1, 64 << 10)
        assert done["discard"] == (1, 1 << 20)
        assert done["flush"][0] >= 1
        errors = after.all(f"cairn_{what}_request_errors_total", "request")
        assert set(errors.values()) == {0}
        for kind, (count, _) in done.items():
            labels = {what: name, "request": kind}
            duration = f"cairn_{what}_request_duration_seconds"
            assert after.get(duration + "_count", **labels) == count
            assert after.get(duration + "_bucket", le="+Inf", **labels) == count
            assert (after.get(duration + "_sum", **labels) > 0) == (count > 0)
            classes = [
                (float(dict(key[1:])["le"].replace("+Inf", "inf")), value)
                for key, value in after.values.items()
                if key[0] == duration + "_bucket" and labels.items() <= dict(key[1:]).items()
            ]
            assert len(classes) == 13
            assert [value for _, value in sorted(classes)] == sorted(v for _, v in classes)
    assert after.get("cairn_node_size_bytes", node="disk") == SIZE
    assert after.get("cairn_node_info", node="disk", driver="qcow2") == 1
    assert after.get("cairn_export_info", export="e", type="nbd") == 1
    assert after.get("process_open_fds") > 3
    assert after.get("process_resident_memory_bytes") > 1 << 20
    assert "file" in after.all("cairn_node_info", "driver")


def test_what_nodes_ask_of_each_other_is_counted(tmp_path):
    """A read that the backing file answers, and a write that stays in the overlay."""
    (tmp_path / "base").write_bytes(b"1" * SIZE)
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "d.qcow2"]
    subprocess.run(create, cwd=tmp_path, check=True)
    words = ["--blockdev", "file,node-name=f,filename=d.qcow2"]
    words += [
        "--blockdev",
        "raw,node-name=base,file.driver=file,file.node-name=bf,file.filename=base",
    ]
    words += ["--blockdev", "qcow2,node-name=disk,file=f,backing=base"]
    words += ["--nbd-server", "addr.type=unix,addr.path=nbd.sock"]
    words += ["--export", "nbd,id=e,node-name=disk,name=disk,writable=on"]
    words += ["--metrics", "addr.type=unix,addr.path=m.sock"]
    with Daemon(OURS, *words, directory=tmp_path) as daemon:
        wait_for(lambda: somebody_listens(tmp_path / "m.sock"))
        connection = UnixConnection(tmp_path / "m.sock")
        before = fetch(connection)
        use(tmp_path, "read -P 49 64k 8k", "write 128k 64k")
        wait_for(lambda: fetch(connection).get("cairn_nbd_clients") == 0)
        after = fetch(connection)
        assert requests(after, "node", "base")["read"] == (1, 8 << 10)
        assert requests(after, "node", "base")["write"] == (0, 0)
        assert requests(after, "node", "bf")["read"][1] >= 8 << 10
        # The data, and tables.
        grown = after.get("cairn_node_request_bytes_total", node="f", request="write")
        grown -= before.get("cairn_node_request_bytes_total", node="f", request="write")
        assert 64 << 10 < grown < 1 << 20
        assert daemon.stop()[0] == 0


def test_failed_requests_are_counted_apart(tmp_path):
    words = ["--blockdev", "file,node-name=f,filename=d.raw"]
    words += ["--blockdev", "blkdebug,node-name=bad,image=f,inject-error.0.event=read_aio"]
    (tmp_path / "d.raw").write_bytes(bytes(65536))
    words += ["--blockdev", "raw,node-name=top,file=bad"]
    words += ["--nbd-server", "addr.type=unix,addr.path=nbd.sock"]
    words += ["--export", "nbd,id=e,node-name=top,name=disk"]
    words += ["--metrics", "addr.type=unix,addr.path=m.sock"]
    with Daemon(OURS, *words, directory=tmp_path) as daemon:
        wait_for(lambda: somebody_listens(tmp_path / "m.sock"))
        _, text = use(tmp_path, "read 0 512", options=["-r"])
        assert "Input/output error" in text
        metrics = fetch(UnixConnection(tmp_path / "m.sock"))
        assert metrics.get("cairn_export_request_errors_total", export="e", request="read") == 1
        assert metrics.get("cairn_export_requests_total", export="e", request="read") == 1
        assert metrics.get("cairn_export_request_bytes_total", export="e", request="read") == 0
        assert daemon.stop()[0] == 0


def cache(metrics, node, name):
    """(hits, misses)"""
    labels = {"node": node, "cache": name}
    hits = metrics.get("cairn_node_cache_hits_total", **labels)
    return hits, metrics.get("cairn_node_cache_misses_total", **labels)


def test_tables_of_an_image_are_read_once(started):
    connection = UnixConnection(started.directory / "m.sock")
    assert use(started.directory, "write 0 64k")[0] == 0
    hits, misses = cache(fetch(connection), "disk", "l2")
    assert misses <= 1
    assert sum(cache(fetch(connection), "disk", "refcounts")) > 0
    for _ in range(3):
        assert use(started.directory, "read 0 64k")[0] == 0
    later, still = cache(fetch(connection), "disk", "l2")
    assert still == misses and later >= hits + 3


def test_the_hit_rate_falls_when_the_cache_is_too_small(tmp_path):
    """A cache of two tables of 64 entries, which are 4 MiB of disk each."""
    size = 64 << 20
    make = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata"]
    subprocess.run([*make, tmp_path / "d.qcow2", str(size)], check=True, timeout=LIMIT)
    words = ["--blockdev", "qcow2,node-name=disk,l2-cache-size=1024,l2-cache-entry-size=512"]
    words[1] += ",file.driver=file,file.filename=d.qcow2"
    words += ["--nbd-server", "addr.type=unix,addr.path=nbd.sock"]
    words += ["--export", "nbd,id=e,node-name=disk,name=disk"]
    words += ["--metrics", "addr.type=unix,addr.path=m.sock"]
    with Daemon(OURS, *words, directory=tmp_path):
        wait_for(lambda: somebody_listens(tmp_path / "m.sock"))
        connection = UnixConnection(tmp_path / "m.sock")
        before = cache(fetch(connection), "disk", "l2")[1]
        assert use(tmp_path, *["read 0 512"] * 10, options=["-r"])[0] == 0
        near = cache(fetch(connection), "disk", "l2")[1]
        assert near - before <= 1
        steps = [f"read {at << 20} 512" for at in range(0, 64, 4)]
        assert use(tmp_path, *steps, options=["-r"])[0] == 0
        assert cache(fetch(connection), "disk", "l2")[1] - near >= len(steps) - 2


def test_a_cache_on_disk_counts_its_clusters(tmp_path):
    data = os.urandom(256 << 10)
    (tmp_path / "d.raw").write_bytes(data)
    os.utime(tmp_path / "d.raw", (1e9, 1e9))
    below = {"driver": "disk-cache", "node-name": "c", "dir": str(tmp_path / "c")}
    below["file"] = {"driver": "file", "filename": str(tmp_path / "d.raw")}
    name = "json:" + json.dumps({"driver": "raw", "file": below})
    make = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", name]
    subprocess.run([*make, tmp_path / "d.qcow2", "256k"], check=True, timeout=LIMIT)
    words = ["--blockdev", "qcow2,node-name=disk,file.driver=file,file.filename=d.qcow2"]
    words += ["--nbd-server", "addr.type=unix,addr.path=nbd.sock"]
    words += ["--export", "nbd,id=e,node-name=disk,name=disk"]
    words += ["--metrics", "addr.type=unix,addr.path=m.sock"]
    with Daemon(OURS, *words, directory=tmp_path):
        wait_for(lambda: somebody_listens(tmp_path / "m.sock"))
        connection = UnixConnection(tmp_path / "m.sock")
        assert cache(fetch(connection), "c", "disk") == (0, 0)
        assert use(tmp_path, "read 0 256k", options=["-r"])[0] == 0
        assert cache(fetch(connection), "c", "disk") == (0, 4)
        assert use(tmp_path, "read 64k 128k", options=["-r"])[0] == 0
        assert cache(fetch(connection), "c", "disk") == (2, 4)


def test_what_comes_later_is_counted_and_what_goes_is_gone(started):
    connection = UnixConnection(started.directory / "m.sock")
    client = started.client()
    client.command("blockdev-add", driver="null-co", node__name="late", size=SIZE)
    client.command("block-export-add", type="nbd", id="l", node__name="late", name="late")
    metrics = fetch(connection)
    assert metrics.get("cairn_node_requests_total", node="late", request="read") == 0
    assert metrics.get("cairn_export_requests_total", export="l", request="read") == 0
    client.command("block-export-del", id="l")
    client.command("blockdev-del", node__name="late")
    metrics = fetch(connection)
    assert "late" not in metrics.all("cairn_node_info", "node")
    assert list(metrics.all("cairn_export_info", "export")) == ["e"]


def test_jobs_have_status_and_progress(started):
    connection = UnixConnection(started.directory / "m.sock")
    client = started.client()
    assert fetch(connection).all("cairn_job_info", "job") == {}
    client.command("blockdev-add", driver="null-co", node__name="copy", size=SIZE)
    started_job = {"job__id": "j", "device": "disk", "target": "copy", "sync": "full"}
    client.command("blockdev-mirror", **started_job)
    assert client.event("BLOCK_JOB_READY")["device"] == "j"
    metrics = fetch(connection)
    assert metrics.get("cairn_job_info", job="j", type="mirror") == 1
    states = metrics.all("cairn_job_status", "status")
    assert [name for name, value in states.items() if value] == ["ready"]
    total = metrics.get("cairn_job_progress_total", job="j")
    assert metrics.get("cairn_job_progress", job="j") == total
    assert metrics.get("cairn_job_speed_limit_bytes", job="j") == 0
    assert metrics.get("cairn_job_failed", job="j") == 0
    client.command("job-cancel", id="j")
    wait_for(lambda: client.command("query-jobs") == [])
    assert fetch(connection).all("cairn_job_info", "job") == {}


def raw(directory, data):
    """What the server says to DATA until it hangs up."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(LIMIT)
        connection.connect(str(directory / "m.sock"))
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while more := connection.recv(65536):
            answer += more
        return answer


HOST = b"Host: x\r\n"
SAID = {
    "not found": (b"GET / HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "query": (b"GET /metrics?x=1 HTTP/1.1\r\n" + HOST + b"\r\n", 200),
    "absolute": (b"GET http://x/metrics HTTP/1.1\r\n" + HOST + b"\r\n", 200),
    "method": (b"POST /metrics HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc", 405),
    "no host": (b"GET /metrics HTTP/1.1\r\n\r\n", 400),
    "older": (b"GET /metrics HTTP/1.0\r\n\r\n", 200),
    "newer": (b"GET /metrics HTTP/2.0\r\n\r\n", 505),
    "no HTTP": (b"\x16\x03\x01\x00\x00\r\n\r\n", 400),
    "zeros": (b"\0" * 100 + b"\r\n\r\n", 400),
    "header": (b"GET /metrics HTTP/1.1\r\n" + HOST + b"bad header\r\n\r\n", 400),
    "two hosts": (b"GET /metrics HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
    "long": (b"GET /metrics HTTP/1.1\r\n" + HOST + b"A: " + b"a" * 9000 + b"\r\n\r\n", 431),
}


def test_what_is_no_request_is_refused(started):
    for name, (data, status) in SAID.items():
        answer = raw(started.directory, data)
        assert answer.startswith(b"HTTP/1.1 %d " % status), (name, answer[:100])
    assert raw(started.directory, b"GET /metrics HTTP/1.1\r\n") == b""
    head = raw(started.directory, b"HEAD /metrics HTTP/1.1\r\n" + HOST + b"\r\n")
    assert head.endswith(b"\r\n\r\n") and b"cairn_" not in head
    two = raw(started.directory, (b"GET / HTTP/1.1\r\n" + HOST + b"\r\n") * 2)
    assert two.count(b"HTTP/1.1 404 ") == 2
    only = (b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n") * 2
    assert raw(started.directory, only).count(b"HTTP/1.1 404 ") == 1


def test_clients_that_say_nothing_do_not_keep_others_out(started):
    """More than there is room for: those that are silent longest are let go, and others answered."""
    silent = []
    for _ in range(100):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(LIMIT)
        connection.connect(str(started.directory / "m.sock"))
        silent.append(connection)
    metrics = fetch(UnixConnection(started.directory / "m.sock"))
    assert metrics.get("process_open_fds") < 32 + 60
    assert silent[0].recv(1) == b""
    for connection in silent:
        connection.close()
    client = started.client()
    assert client.command("query-version")


def pages_of_ports(pid, ports):
    """What those of PORTS show on which somebody listens; others of this machine may be among them."""
    pages = []
    for line in open(f"/proc/{pid}/net/tcp").readlines()[1:]:
        fields = line.split()
        port = int(fields[1].split(":")[1], 16)
        if fields[3] != "0A" or port not in ports:
            continue
        try:
            pages.append(fetch(http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)))
        except (AssertionError, OSError):
            continue
    return pages


def test_a_port_serves_as_well_and_only_once(tmp_path):
    words = ["--metrics", "addr.type=inet,addr.host=127.0.0.1,addr.port=20590,addr.to=20689"]
    with Daemon(OURS, *words, directory=tmp_path) as daemon:
        pages, until = [], time.monotonic() + LIMIT
        while not pages and time.monotonic() < until:
            pages = pages_of_ports(daemon.process.pid, range(20590, 20690))
        assert pages
        assert daemon.stop() == (0, "")


def test_the_option_is_checked(tmp_path):
    for words, message in (
        (["--metrics", "x=1"], "Parameter 'x' is unexpected"),
        (["--metrics", "{}"], "Parameter 'addr' is missing"),
        (["--metrics", "addr.type=unix"], "Parameter 'addr.path' is missing"),
        (["--metrics", "addr.type=unix,addr.path=a"] * 2, "Metrics are served already"),
    ):
        done = subprocess.run(
            [*OURS, *words], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT
        )
        assert done.returncode == 1 and message in done.stderr, done.stderr
    done = subprocess.run([COMPAT, "--metrics", "x"], capture_output=True, timeout=LIMIT)
    assert done.returncode == 1 and b"--metrics" in done.stderr


def test_a_section_of_the_file_is_the_option(tmp_path):
    (tmp_path / "c.conf").write_text('[metrics]\naddr.type = "unix"\naddr.path = "m.sock"\n')
    with Daemon(OURS, "--config", "c.conf", directory=tmp_path) as daemon:
        wait_for(lambda: somebody_listens(tmp_path / "m.sock"))
        assert fetch(UnixConnection(tmp_path / "m.sock")).all("cairn_build_info", "version")
        assert daemon.stop() == (0, "")
    assert not (tmp_path / "m.sock").exists()


def test_the_page_lists_every_metric_and_no_other(started):
    page = (TOP / "docs/metrics.md").read_text()
    listed = defaultdict(list)
    for name, kind in re.findall(r"^\| `([a-z_]+)` \| (\w+) \|", page, re.M):
        listed[name].append(kind)
    printed = fetch(UnixConnection(started.directory / "m.sock")).types
    assert {name: [kind] for name, kind in printed.items()} == dict(listed)
