"""The NBD client with servers that fail, limit and end, with our own server, and what `cairn serve` draws on a terminal."""
import hashlib
import os
import pty
import re
import select
import signal
import subprocess
import time

import pytest

from conftest import CAIRN, call
from nbd_support import QEMU_NBD, Server


@pytest.fixture
def serve(folder):
    servers = []

    def start(*words, name="n.sock"):
        servers.append(
            Server(
                [str(word).replace("SOCKET", str(folder / name)) for word in words], folder / name
            )
        )
        return servers[-1]

    yield start
    for one in servers:
        one.end()


def nbdkit(*words):
    return ["nbdkit", "-f", "-U", "SOCKET", *words]


def test_a_filter_that_tries_again(serve, ours, disk):
    """Reads fail for a while; the filter asks again behind the client's back."""
    (disk.parent / "fail").write_bytes(b"")
    one = serve(
        *nbdkit(
            "--filter=retry",
            "--filter=error",
            "file",
            disk,
            "retry-delay=1",
            "retries=20",
            "retry-exponential=no",
            "error-pread=EIO",
            "error-pread-rate=100%",
            "error-pread-file=fail",
        )
    )
    job = subprocess.Popen(
        [CAIRN, "compare", "-f", "raw", "-F", "raw", disk, one.uri()],
        stdout=subprocess.PIPE,
        text=True,
    )
    time.sleep(0.3)
    assert job.poll() is None
    os.unlink("fail")
    out, _ = job.communicate(timeout=20)
    assert job.returncode == 0 and "identical" in out


def test_a_server_that_ends_with_its_last_client(folder, ours, disk):
    """All connections of an image belong together: the server is not lost before the work is done."""
    path = folder / "n.sock"
    job = subprocess.Popen(
        ["nbdkit", "-f", "-U", path, "--filter=exitlast", "file", disk],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        options = f"driver=raw,file.driver=nbd,file.path={path},file.open-timeout=10"
        ours("convert", "--image-opts", "-O", "qcow2", options, "back.qcow2")
        assert job.wait(10) == 0
    finally:
        job.kill()
        job.wait()
    assert "identical" in ours("compare", disk, "back.qcow2").out


def test_caching_is_left_to_the_server(serve, folder, disk):
    """What our client is asked to have ready is fetched by the server behind it: here ours asks as the server of another one."""
    import nbd

    one = serve(*nbdkit("--filter=log", "file", disk, f"logfile={folder}/log"))
    ours = serve(CAIRN, "nbd", "-t", "-r", "-f", "raw", "-k", "SOCKET", one.uri(), name="ours.sock")
    handle = nbd.NBD()
    handle.connect_uri(ours.uri())
    assert handle.can_cache()
    handle.cache(128 * 1024, 64 * 1024)
    handle.shutdown()
    log = (folder / "log").read_text()
    assert (
        "Cache id=" in log
        and "offset=0x10000 count=0x20000" in log
        and "Read id=" not in log.split("Cache id=")[1]
    )


def test_slow_answers_are_waited_for_side_by_side(serve, ours, disk):
    one = serve(*nbdkit("--filter=delay", "file", disk, "rdelay=30ms", "delay-extents=20ms"))
    begin = time.monotonic()
    assert "identical" in ours("compare", "-f", "raw", "-F", "raw", disk, one.uri()).out
    assert time.monotonic() - begin < 20
    done = call(CAIRN, "bench", "-f", "raw", "-c", "100", "-d", "25", one.uri())
    # 100 answers of 30 ms, 25 at a time, are 0.12 seconds; one by one they were 3.
    assert float(re.search(r"completed in ([\d.]+)", done.out)[1]) < 2.5


@pytest.mark.parametrize("connections", ["emulate", "disable"])
def test_copies_do_not_wait_for_one_request_after_the_other(serve, ours, folder, connections):
    data = os.urandom(64 << 20)
    (folder / "a.raw").write_bytes(data)
    (folder / "t.raw").write_bytes(bytes(len(data)))
    one = serve(
        *nbdkit(
            "--filter=multi-conn",
            "--filter=delay",
            "file",
            "t.raw",
            f"multi-conn-mode={connections}",
            "wdelay=200ms",
            "rdelay=200ms",
        )
    )
    for words in (["-n", "a.raw", one.uri()], [one.uri(), "b.raw"]):
        begin = time.monotonic()
        ours("convert", "-f", "raw", "-O", "raw", *words)
        # 32 requests of 2 MiB: 6.4 seconds one by one.
        assert time.monotonic() - begin < 4
    begin = time.monotonic()
    assert "identical" in ours("compare", "-f", "raw", "-F", "raw", "a.raw", one.uri()).out
    assert (
        call(CAIRN, "hash", "-f", "raw", one.uri()).out.split()[0]
        == hashlib.sha256(data).hexdigest()
    )
    assert time.monotonic() - begin < 8
    assert (folder / "t.raw").read_bytes() == data
    assert (folder / "b.raw").read_bytes() == data


def test_long_zeroes_travel_side_by_side(serve, ours, folder):
    for name in ("a.raw", "t.raw"):
        with open(folder / name, "wb") as out:
            out.truncate(1 << 30)
    one = serve(*nbdkit("--filter=delay", "file", "t.raw", "delay-zero=200ms"))
    begin = time.monotonic()
    ours("convert", "-n", "-f", "raw", "-O", "raw", "a.raw", one.uri())
    assert time.monotonic() - begin < 4


@pytest.mark.parametrize("kind", ["EIO", "ENOSPC", "EPERM"])
def test_errors_keep_their_kind_and_the_connection(serve, folder, ours, disk, kind):
    (folder / "fail").write_bytes(b"")
    words = {
        "EIO": "Input/output error",
        "ENOSPC": "No space left on device",
        "EPERM": "Operation not permitted",
    }[kind]
    one = serve(
        *nbdkit(
            "--filter=error", "file", disk, f"error={kind}", "error-rate=100%", "error-file=fail"
        )
    )
    run = subprocess.run(
        [CAIRN, "io", "-f", "raw", one.uri()],
        input="read 0 512\nwrite 0 512\n",
        capture_output=True,
        text=True,
    )
    assert f"read failed: {words}" in run.stdout and f"write failed: {words}" in run.stdout
    os.unlink("fail")
    assert "identical" in ours("compare", "-f", "raw", "-F", "raw", disk, one.uri()).out


def test_without_extents_everything_is_data(serve, ours, qemu, folder):
    with open("h.raw", "wb") as out:
        out.truncate(4 << 20)
    one = serve(*nbdkit("--filter=noextents", "file", "h.raw"))
    pieces = ours("map", "-f", "raw", "--output=json", one.uri()).json()
    assert pieces == qemu("map", "-f", "raw", "--output=json", one.uri()).json()
    assert [(piece["start"], piece["length"], piece["data"]) for piece in pieces] == [
        (0, 4 << 20, True)
    ]
    # Nothing is known of holes; zeroes that are read are left out all the same.
    ours("convert", "-f", "raw", "-O", "qcow2", one.uri(), "h.qcow2")
    assert all(not piece["data"] for piece in ours("map", "--output=json", "h.qcow2").json())


def test_requests_outside_the_block_sizes_are_refused_by_the_filter_and_never_sent(
    serve, ours, folder
):
    (folder / "t.raw").write_bytes(os.urandom(1 << 20))
    one = serve(
        *nbdkit(
            "--filter=blocksize-policy",
            "file",
            "t.raw",
            "blocksize-minimum=4096",
            "blocksize-preferred=65536",
            "blocksize-maximum=128k",
            "blocksize-error-policy=error",
        )
    )
    text = "write -P 7 1000 5\nread -P 7 1000 5\nwrite -P 8 100000 600000\nread -P 8 100000 600000\nwrite -z 5000 10\ndiscard 0 4096\n"
    run = subprocess.run(
        [CAIRN, "io", "-f", "raw", one.uri()], input=text, capture_output=True, text=True
    )
    assert run.returncode == 0 and "failed" not in run.stdout + run.stderr, run.stdout


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_our_client_with_our_server(serve, ours, qemu, folder, disk, fmt):
    qemu("convert", "-O", fmt, disk, "served")
    one = serve(QEMU_NBD, "-t", "-e", "0", "-k", "SOCKET", "-f", fmt, "served")
    # Served as the disk that it holds: the source's length rounded up to sectors.
    assert ours("info", "--output=json", one.uri()).json()["virtual-size"] == disk.stat().st_size
    assert "identical" in ours("compare", "-f", "raw", "-F", "raw", disk, one.uri()).out
    mine = ours("map", "-f", "raw", "--output=json", one.uri()).json()
    assert [(p["start"], p["length"], p["data"], p["zero"]) for p in mine] == [
        (p["start"], p["length"], p["data"], p["zero"])
        for p in qemu("map", "-f", "raw", "--output=json", one.uri()).json()
    ]
    text = "write -P 5 1000 70000\nread -P 5 1000 70000\nwrite -z -u 65536 65536\nread -P 0 65536 65536\ndiscard 0 64k\nflush\n"
    run = subprocess.run(
        [CAIRN, "io", "-f", "raw", one.uri()], input=text, capture_output=True, text=True
    )
    assert run.returncode == 0 and "failed" not in run.stdout, run.stdout
    ours("convert", "-n", "-f", "raw", "-O", "raw", disk, one.uri())
    assert one.stop() == 0
    assert "identical" in qemu("compare", "-f", "raw", "-F", fmt, disk, "served").out
    call("qemu-img", "check", "served", ok=False)


def test_our_client_sees_our_bitmaps_and_depths(serve, ours, qemu, qemu_io, folder):
    qemu("create", "-q", "-f", "qcow2", "base.qcow2", "4M")
    qemu_io("base.qcow2", "write 0 1M")
    qemu("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2")
    qemu("bitmap", "--add", "top.qcow2", "b0")
    qemu_io("top.qcow2", "write 2M 64k")
    one = serve(QEMU_NBD, "-t", "-k", "SOCKET", "-A", "-B", "b0", "-f", "qcow2", "top.qcow2")
    for context in ("qemu:dirty-bitmap:b0", "qemu:allocation-depth"):
        words = f"driver=nbd,server.type=unix,server.path={one.path},x-dirty-bitmap={context}"
        mine = ours("map", "--output=json", "--image-opts", words)
        assert (
            mine.out == qemu("map", "--output=json", "--image-opts", words).out
            and mine.out.count("\n") > 1
        )


def test_serve_draws_a_line_on_a_terminal(folder, disk):
    """Clients and what goes through are shown on one line that is drawn anew, and is gone at the end."""
    master, slave = pty.openpty()
    job = subprocess.Popen(
        [CAIRN, "serve", "-k", folder / "s.sock", "-f", "raw", disk],
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
    )
    os.close(slave)
    shown = ""

    def until(pattern, seconds=20):
        nonlocal shown
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, shown)):
            assert time.monotonic() < end, shown
            if select.select([master], [], [], 0.2)[0]:
                shown += os.read(master, 4096).decode()
        shown = shown[found.end() :]
        return found

    try:
        uri = job.stdout.readline().strip()
        until(r"\r0 clients  read 0 B/s  written 0 B/s  0 requests/s\x1b\[K")
        reader = subprocess.Popen(
            [CAIRN, "bench", "-f", "raw", "-c", "100000000", "-d", "4", uri],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        rate = until(r"\r(\d+) clients?  read ([\d.]+) [KMG]iB/s  written 0 B/s  (\d+) requests/s")
        assert int(rate[1]) >= 1 and int(rate[3]) > 0
        reader.terminate()
        reader.wait()
        until(r"\r0 clients  read ")
        job.send_signal(signal.SIGINT)
        assert job.wait(10) == 0
        # The line does not stay behind.
        until(r"\r\x1b\[K")
        assert "requests" not in shown
    finally:
        job.kill()
        job.wait()
        job.stdout.close()
        os.close(master)
