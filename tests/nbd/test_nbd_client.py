"""Disks of NBD servers as images: nbdkit with its filters, nbd-server, qemu-nbd, and servers that misbehave."""
import json
import os
import signal
import socket
import struct
import subprocess
import time

import pytest

from conftest import CAIRN, sparse_disk
from odd_nbd import OddNbd


def answers(path):
    """A socket that exists does not yet mean that somebody listens."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def wait_for(condition, seconds=15):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the server did not come up"
        time.sleep(0.01)


@pytest.fixture
def started():
    jobs = []

    def start(*words, **more):
        jobs.append(
            subprocess.Popen(
                [*map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more
            )
        )
        return jobs[-1]

    yield start
    for job in jobs:
        if job.poll() is None:
            job.send_signal(signal.SIGTERM)
            try:
                job.wait(5)
            except subprocess.TimeoutExpired:
                job.kill()
                job.wait()


@pytest.fixture
def nbdkit(folder, started):
    def start(*words, name="n.sock"):
        path = folder / name
        path.unlink(missing_ok=True)
        started("nbdkit", "-f", "-U", path, *words)
        wait_for(lambda: answers(path))
        return f"nbd+unix:///?socket={path}"

    return start


@pytest.fixture
def qemu_nbd(folder, started):
    def start(*words, name="q.sock", export=""):
        path = folder / name
        started("qemu-nbd", "-t", "-k", path, "-x", export, *words)
        wait_for(lambda: answers(path))
        return f"nbd+unix:///{export}?socket={path}"

    return start


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


FORMS = {
    "structured": [],
    "not fixed": ["--mask-handshake=0"],
    "simple": ["--no-sr"],
    "no extents": ["--filter=noextents"],
    "one connection": ["--filter=multi-conn", "multi-conn-mode=disable"],
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_the_protocol(ours, qemu, nbdkit, disk, form):
    uri = nbdkit(
        *[word for word in FORMS[form] if "=" not in word or word.startswith("-")],
        "memory",
        "3146240",
        *[word for word in FORMS[form] if "=" in word and not word.startswith("-")],
    )
    ours("convert", "-n", "-f", "raw", "-O", "raw", disk, uri)
    assert "identical" in ours("compare", "-f", "raw", "-F", "raw", disk, uri).out
    assert "identical" in qemu("compare", "-f", "raw", "-F", "raw", disk, uri).out
    assert (
        ours("map", "-f", "raw", "--output=json", uri).out
        == qemu("map", "-f", "raw", "--output=json", uri).out
    )
    for words in (["info", uri], ["info", "--output=json", uri]):
        assert ours(*words).out == qemu(*words).out
    ours("convert", "-f", "raw", "-O", "qcow2", uri, "back.qcow2")
    qemu("check", "back.qcow2")
    assert "identical" in qemu("compare", disk, "back.qcow2").out


def test_oldstyle(ours, qemu, nbdkit, disk):
    uri = nbdkit("-o", "-r", "file", disk)
    assert "identical" in ours("compare", "-f", "raw", "-F", "raw", disk, uri).out
    assert ours("info", uri).out == qemu("info", uri).out
    failed = ours("info", uri.replace(":///", ":///name"), ok=False)
    assert failed.code == 1 and "non-empty export names" in failed.err


def test_odd_sizes(ours, nbdkit, folder):
    data = os.urandom(1000001)
    (folder / "a").write_bytes(data)
    uri = nbdkit("file", "a")
    assert "1000448" in ours("info", "-f", "raw", uri).out
    ours("convert", "-f", "raw", "-O", "raw", uri, "b")
    assert (folder / "b").read_bytes() == data + bytes(447)
    ours("convert", "-n", "-f", "raw", "-O", "raw", "b", uri)
    assert (folder / "a").read_bytes() == data


@pytest.mark.parametrize(
    "least, most", [(1, 65536), (512, 512), (4096, 1 << 20), (65536, 32 << 20)]
)
def test_block_sizes_are_honoured(ours, nbdkit, folder, least, most):
    disk = sparse_disk(folder / "d.raw", 4 << 20)
    (folder / "t.raw").write_bytes(bytes(4 << 20))
    uri = nbdkit(
        "--filter=blocksize-policy",
        "file",
        "t.raw",
        f"blocksize-minimum={least}",
        f"blocksize-preferred={max(least, 4096) if most >= 4096 else most}",
        f"blocksize-maximum={most}",
        "blocksize-error-policy=error",
    )
    ours("convert", "-n", "-O", "raw", disk, uri)
    ours(
        "bench",
        "-w",
        "-f",
        "raw",
        "-s",
        "700",
        "-S",
        "5001",
        "-c",
        "300",
        "-d",
        "8",
        "--pattern",
        "0",
        uri,
    )
    ours("convert", "-f", "raw", "-O", "raw", uri, "back.raw")
    assert (folder / "back.raw").read_bytes() == (folder / "t.raw").read_bytes()


@pytest.mark.parametrize("kind", ["read", "write", "zero", "extents"])
def test_errors_of_the_server(ours, nbdkit, disk, kind):
    name = {"read": "pread", "write": "pwrite"}.get(kind, kind)
    (disk.parent / "served").write_bytes(disk.read_bytes())
    uri = nbdkit(
        "--filter=error", "file", "served", f"error-{name}=ENOSPC", f"error-{name}-rate=100%"
    )
    words = (
        ["-f", "raw", "-O", "raw", uri, "out.raw"]
        if kind in ("read", "extents")
        else ["-n", "-f", "raw", "-O", "raw", disk, uri]
    )
    failed = ours("convert", *words, ok=False)
    assert failed.code == 1 and "No space left on device" in failed.err


def test_an_image_behind_a_slow_server(ours, qemu, nbdkit, folder, disk):
    qemu("convert", "-O", "qcow2", disk, "a.qcow2")
    uri = nbdkit("--filter=delay", "file", "a.qcow2", "rdelay=5ms", "wdelay=5ms")
    assert "qcow2" in ours("info", uri).out
    assert "identical" in ours("compare", disk, uri).out


def test_as_a_backing_file(ours, qemu, nbdkit, disk):
    uri = nbdkit("-r", "file", str(disk))
    ours("create", "-q", "-f", "qcow2", "-b", uri, "-F", "raw", "top.qcow2")
    assert "identical" in ours("compare", disk, "top.qcow2").out
    assert "identical" in qemu("compare", disk, "top.qcow2").out
    refused = ours("bench", "-w", "-c", "1", "-f", "raw", uri, ok=False)
    assert refused.code == 1 and "Could not open image: Permission denied" in refused.err


def test_qemu_nbd_with_contexts(ours, qemu, qemu_io, qemu_nbd, folder):
    qemu("create", "-q", "-f", "qcow2", "base.qcow2", "8M")
    qemu_io("base.qcow2", "write 0 1M")
    qemu("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2")
    qemu("bitmap", "--add", "top.qcow2", "b0")
    qemu_io("top.qcow2", "write 2M 64k", "write -z 3M 64k")
    uri = qemu_nbd("-e", "0", "-A", "-B", "b0", "-f", "qcow2", "top.qcow2", export="exp")
    path = folder / "q.sock"
    assert "8 MiB" in ours("info", uri).out
    for context in ("qemu:dirty-bitmap:b0", "qemu:allocation-depth"):
        words = (
            f"driver=nbd,server.type=unix,server.path={path},export=exp,x-dirty-bitmap={context}"
        )
        assert (
            ours("map", "--output=json", "--image-opts", words).out
            == qemu("map", "--output=json", "--image-opts", words).out
        )
    missing = ours("map", "--image-opts", words + "x", ok=False)
    assert missing.code == 1 and "not found" in missing.err
    wrong = f"nbd+unix:///none?socket={path}"
    ours_said, theirs = ours("info", wrong, ok=False), qemu("info", wrong, ok=False)
    assert (ours_said.code, ours_said.err) == (theirs.code, theirs.err)


def test_a_client_that_was_refused_takes_its_leave(ours, qemu, folder):
    """The server takes the end of the connection for what it is, not for a fault."""
    qemu("create", "-q", "-f", "raw", "a.raw", "1M")
    server = subprocess.Popen(
        ["qemu-nbd", "-t", "-k", folder / "q.sock", "-x", "exp", "-f", "raw", "a.raw"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(
            lambda: qemu("info", f"nbd+unix:///exp?socket={folder}/q.sock", ok=False).code == 0
        )
        refused = ours("info", f"nbd+unix:///none?socket={folder}/q.sock", ok=False)
        assert refused.code == 1 and "Requested export not available" in refused.err
        assert "1 MiB" in ours("info", f"nbd+unix:///exp?socket={folder}/q.sock").out
    finally:
        server.terminate()
        said = server.communicate(timeout=60)[1]
    assert said == ""


def test_spellings(ours, started, folder):
    port = free_port()
    started("nbdkit", "-f", "-p", port, "-i", "127.0.0.1", "memory", "1M")
    wait_for(lambda: listens(port))
    for name in (
        f"nbd://127.0.0.1:{port}",
        f"nbd://127.0.0.1:{port}/x",
        f"nbd+tcp://127.0.0.1:{port}/",
        f"nbd:127.0.0.1:{port}",
        f"nbd:127.0.0.1:{port}:exportname=a b",
        f'json:{{"driver":"nbd","host":"127.0.0.1","port":"{port}"}}',
        json.dumps(
            {
                "driver": "raw",
                "file": {
                    "driver": "nbd",
                    "export": "e",
                    "server": {"type": "inet", "host": "127.0.0.1", "port": str(port)},
                },
            }
        ).join(["json:", ""]),
    ):
        assert "1 MiB" in ours("info", name).out, name
    told = ours(
        "info",
        "--output=json",
        "--image-opts",
        f"driver=nbd,server.type=inet,server.host=127.0.0.1,server.port={port}",
    ).json()
    assert told["filename"] == f"nbd://127.0.0.1:{port}"
    for words, message in [
        ("driver=nbd", "address missing"),
        ("driver=nbd,port=1", "port may not be used without host"),
        ("driver=nbd,path=x,host=y", "path and host"),
        ("driver=nbd,host=y,server.type=unix", "same time"),
        ("driver=nbd,host=127.0.0.1,port=1", "Failed to connect"),
        ("driver=nbd,host=y,export=" + "x" * 5000, "too long"),
        (f"driver=nbd,host=127.0.0.1,port={port},oops=1", "oops"),
    ]:
        failed = ours("info", "--image-opts", words, ok=False)
        assert failed.code == 1 and message in failed.err, (words, failed.err)
    for name in ("nbd://", "nbd+unix:///x", "nbd://h/?x=1", "nbd+tls://h"):
        assert ours("info", name, ok=False).code == 1


def test_nbd_server(ours, started, folder, disk):
    port = free_port()
    (folder / "t.raw").write_bytes(bytes(disk.stat().st_size))
    (folder / "conf").write_text(
        f"[generic]\nallowlist = true\nlistenaddr = 127.0.0.1\nport = {port}\n[e]\nexportname = {folder}/t.raw\n"
    )
    subprocess.run(["nbd-server", "-C", folder / "conf", "-p", folder / "pid"], check=True)
    wait_for(lambda: listens(port) and (folder / "pid").exists())
    try:
        ours("convert", "-n", "-O", "raw", disk, f"nbd://127.0.0.1:{port}/e")
        assert "identical" in ours("compare", "-F", "raw", disk, f"nbd://127.0.0.1:{port}/e").out
    finally:
        os.kill(int((folder / "pid").read_text()), signal.SIGTERM)
    assert (folder / "t.raw").read_bytes() == disk.read_bytes()


def test_a_target_must_be_large_enough(ours, qemu, nbdkit, disk):
    uri = nbdkit("memory", "1M")
    failed = ours("convert", "-O", "raw", disk, uri, ok=False)
    assert failed.code == 1 and "Cannot grow NBD nodes" in failed.err
    assert ours("create", "-f", "raw", uri, "1M").code == 0
    for words in (["2M"], ["--shrink", "512K"]):
        failed = ours("resize", "-f", "raw", uri, *words, ok=False)
        assert (
            failed.code == 1
            and failed.err == qemu("resize", "-f", "raw", uri, *words, ok=False).err
        )


def test_a_server_that_comes_back(ours, nbdkit, started, folder):
    path = folder / "n.sock"
    (folder / "d.raw").write_bytes(bytes(64 << 20))
    server = started("nbdkit", "-f", "-U", path, "--filter=delay", "file", "d.raw", "wdelay=20ms")
    wait_for(lambda: answers(path))
    words = f"driver=raw,file.driver=nbd,file.path={path},file.reconnect-delay=20"
    job = subprocess.Popen(
        [
            CAIRN,
            "bench",
            "-w",
            "-s",
            "64k",
            "-c",
            "400",
            "-d",
            "8",
            "--pattern",
            "90",
            "--image-opts",
            words,
        ]
    )
    time.sleep(0.4)
    server.kill()
    server.wait()
    path.unlink()
    time.sleep(0.3)
    started("nbdkit", "-f", "-U", path, "file", "d.raw")
    assert job.wait(30) == 0
    assert (folder / "d.raw").read_bytes()[: 400 * 65536] == b"Z" * (400 * 65536)


def test_a_server_that_does_not(ours, nbdkit, started, folder):
    path = folder / "n.sock"
    for delay, least, most in ((0, 0, 2), (1, 0.9, 4)):
        server = started(
            "nbdkit", "-f", "-U", path, "--filter=delay", "memory", "64M", "wdelay=20ms"
        )
        wait_for(lambda: answers(path))
        words = f"driver=raw,file.driver=nbd,file.path={path},file.reconnect-delay={delay}"
        job = subprocess.Popen(
            [CAIRN, "bench", "-w", "-s", "64k", "-c", "400", "-d", "8", "--image-opts", words],
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(0.4)
        server.kill()
        server.wait()
        path.unlink()
        begin = time.monotonic()
        _, said = job.communicate(timeout=30)
        assert job.returncode == 1 and "Input/output error" in said
        assert least <= time.monotonic() - begin <= most


def test_a_server_that_comes_back_smaller_is_refused(started, folder):
    path = folder / "n.sock"
    server = started("nbdkit", "-f", "-U", path, "--filter=delay", "memory", "64M", "wdelay=20ms")
    wait_for(lambda: answers(path))
    words = f"driver=raw,file.driver=nbd,file.path={path},file.reconnect-delay=20"
    job = subprocess.Popen(
        [CAIRN, "bench", "-w", "-s", "64k", "-c", "400", "-d", "8", "--image-opts", words],
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(0.4)
    server.kill()
    server.wait()
    path.unlink()
    started("nbdkit", "-f", "-U", path, "memory", "32M")
    _, said = job.communicate(timeout=30)
    assert job.returncode == 1 and "shrunk" in said


def test_opening_waits(ours, started, folder):
    path = folder / "n.sock"
    job = subprocess.Popen(
        [CAIRN, "info", "--image-opts", f"driver=nbd,path={path},open-timeout=10"],
        stdout=subprocess.PIPE,
    )
    time.sleep(0.5)
    started("nbdkit", "-f", "-U", path, "memory", "1M")
    assert b"1 MiB" in job.communicate(timeout=15)[0] and job.returncode == 0
    failed = ours("info", "--image-opts", f"driver=nbd,path={folder}/none,open-timeout=1", ok=False)
    assert failed.code == 1 and "No such file" in failed.err


# --- TLS ---


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    place = tmp_path_factory.mktemp("pki")

    def tool(*words):
        subprocess.run(["certtool", *words], cwd=place, check=True, capture_output=True)

    for name, info in {
        "ca": "cn = test CA\nca\ncert_signing_key\n",
        "server": "cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\ntls_www_server\nencryption_key\nsigning_key\n",
        "client": "cn = client\ntls_www_client\nencryption_key\nsigning_key\n",
    }.items():
        (place / f"{name}.info").write_text(info)
        tool("--generate-privkey", "--key-type=ed25519", "--outfile", f"{name}-key.pem")
        if name == "ca":
            tool(
                "--generate-self-signed",
                "--load-privkey",
                "ca-key.pem",
                "--template",
                "ca.info",
                "--outfile",
                "ca-cert.pem",
            )
        else:
            tool(
                "--generate-certificate",
                "--load-ca-certificate",
                "ca-cert.pem",
                "--load-ca-privkey",
                "ca-key.pem",
                "--load-privkey",
                f"{name}-key.pem",
                "--template",
                f"{name}.info",
                "--outfile",
                f"{name}-cert.pem",
            )
    (place / "keys.psk").write_text("alice:" + "ab" * 32 + "\n")
    return place


def test_tls_with_certificates(ours, started, certificates, disk):
    port = free_port()
    started(
        "nbdkit",
        "-f",
        "-p",
        port,
        "-i",
        "127.0.0.1",
        "--tls=require",
        f"--tls-certificates={certificates}",
        "--tls-verify-peer",
        "file",
        disk,
    )
    wait_for(lambda: listens(port))
    uri = f"nbds://localhost:{port}/?tls-certificates={certificates}"
    assert "identical" in ours("compare", "-F", "raw", disk, uri).out
    secret = ["--object", f"tls-creds-x509,id=c,endpoint=client,dir={certificates}"]
    words = f"driver=nbd,host=localhost,port={port},tls-creds=c"
    assert "3 MiB" in ours("info", *secret, "--image-opts", words).out
    for failing, message in [
        ([*secret, "--image-opts", words + ",tls-hostname=other"], "does not match the hostname"),
        ([f"nbd://localhost:{port}/"], "TLS"),
    ]:
        failed = ours("info", *failing, ok=False)
        assert failed.code == 1 and message in failed.err, failed.err


def test_tls_with_keys(ours, started, certificates, disk):
    port = free_port()
    started(
        "nbdkit",
        "-f",
        "-p",
        port,
        "-i",
        "127.0.0.1",
        "--tls=require",
        f"--tls-psk={certificates}/keys.psk",
        "file",
        disk,
    )
    wait_for(lambda: listens(port))
    assert (
        "identical"
        in ours(
            "compare",
            "-F",
            "raw",
            disk,
            f"nbds://alice@127.0.0.1:{port}/?tls-psk-file={certificates}/keys.psk",
        ).out
    )
    assert (
        ours(
            "info", f"nbds://bob@127.0.0.1:{port}/?tls-psk-file={certificates}/keys.psk", ok=False
        ).code
        == 1
    )


def test_tls_is_not_given_up(ours, nbdkit, certificates, folder):
    """CVE-2019-14842: a server without TLS where TLS is demanded."""
    for words in ([], ["-o"], ["--mask-handshake=0"]):
        nbdkit(*words, "memory", "1M")
        failed = ours(
            "info",
            f"nbds+unix:///?socket={folder}/n.sock&tls-certificates={certificates}",
            ok=False,
        )
        assert failed.code == 1 and "STARTTLS" in failed.err.upper()


# --- servers that misbehave ---


def answer(kind, data=b"", **more):
    return lambda reply, peer: reply(kind, data, **more)


GOOD = struct.pack(">HQH", 0, 1 << 20, 1)
HANDSHAKES = {
    "no NBD at all": {"greeting": b"SSH-2.0-OpenSSH_9.2 and more\r\n"},
    "bad second magic": {"greeting": struct.pack(">QQH", 0x4E42444D41474943, 5, 3)},
    "oversized text of an error (CVE-2017-2630)": {7: answer(0x80000003, size=0x7FFFFFFF)},
    "text of 32 MiB and more": {7: answer(0x80000003, size=(32 << 20) + 1)},
    "ACK with data": {8: answer(1, b"xxxx")},
    "reply to another option": {8: answer(1, echo=3)},
    "unknown success": {8: answer(77)},
    "information of a wrong size": {7: answer(3, GOOD + b"x")},
    "information without a type": {7: answer(3, b"x")},
    "no information about the export": {7: lambda reply, peer: reply(1)},
    "size above 2^63 (CVE-2023-5215)": {
        7: lambda reply, peer: [reply(3, struct.pack(">HQH", 0, 1 << 63, 1)), reply(1), True][-1]
    },
    "no HAS_FLAGS": {
        7: lambda reply, peer: [reply(3, struct.pack(">HQH", 0, 1 << 20, 0)), reply(1), True][-1]
    },
    "block size that is not a power of two": {
        7: answer(3, struct.pack(">HIII", 3, 3, 4096, 1 << 20))
    },
    "block size of nothing": {7: answer(3, struct.pack(">HIII", 3, 0, 4096, 1 << 20))},
    "largest block below the least": {7: answer(3, struct.pack(">HIII", 3, 4096, 4096, 512))},
    "size no multiple of the least block": {
        7: lambda reply, peer: [
            reply(3, struct.pack(">HIII", 3, 4096, 4096, 1 << 20)),
            reply(3, struct.pack(">HQH", 0, 1000, 1)),
            reply(1),
            True,
        ][-1]
    },
    "endless information": {
        7: lambda reply, peer: [reply(3, struct.pack(">H", 99)) for _ in range(10000)]
    },
    "context that was not asked for": {10: answer(4, struct.pack(">I", 1) + b"base:other")},
    "context without a name": {10: answer(4, struct.pack(">I", 1))},
    "context with a long name": {10: answer(4, struct.pack(">I", 1) + b"x" * 5000)},
    "one context twice": {
        10: lambda reply, peer: [
            reply(4, struct.pack(">I", i) + b"base:allocation") for i in range(2)
        ]
        and None
    },
    "endless list": {
        7: answer(0x80000001),
        3: lambda reply, peer: [reply(2, struct.pack(">I", 1) + b"x") for _ in range(20000)],
    },
    "list entry with a long name": {
        7: answer(0x80000001),
        3: answer(2, struct.pack(">I", 5000) + b"x" * 5000),
    },
    "list entry that ends early": {
        7: answer(0x80000001),
        3: answer(2, struct.pack(">I", 50) + b"x"),
    },
    "control characters in a text": {7: answer(0x80000006, b"\x1b[31mred\x07")},
}


@pytest.mark.parametrize("what", HANDSHAKES)
def test_hostile_handshakes(ours, folder, what):
    OddNbd(folder / "e.sock", HANDSHAKES[what])
    failed = ours(
        "info", "-f", "raw", f"nbd+unix:///some?socket={folder}/e.sock", ok=False, timeout=20
    )
    assert failed.code == 1 and failed.err
    assert "\x1b" not in failed.err and "\x07" not in failed.err
    assert len(failed.err) < 10000


def overlap(chunk, offset, length, cookie, peer):
    chunk(1, struct.pack(">Q", offset) + bytes(length), done=0)
    chunk(1, struct.pack(">Q", offset) + bytes(length))


READS = {
    "data before the range": lambda chunk, o, l, c, p: chunk(
        1, struct.pack(">Q", (o - 1) % 2**64) + bytes(l)
    ),
    "data behind the range": lambda chunk, o, l, c, p: chunk(
        1, struct.pack(">Q", o) + bytes(l + 1)
    ),
    "offset that overflows": lambda chunk, o, l, c, p: chunk(
        1, struct.pack(">Q", 2**64 - 1) + bytes(2)
    ),
    "overlap": overlap,
    "data without data": lambda chunk, o, l, c, p: chunk(1, struct.pack(">Q", o)),
    "half of it": lambda chunk, o, l, c, p: chunk(1, struct.pack(">Q", o) + bytes(l // 2)),
    "nothing": lambda chunk, o, l, c, p: chunk(0, b""),
    "nothing without an end": lambda chunk, o, l, c, p: chunk(0, b"", done=0),
    "hole of nothing": lambda chunk, o, l, c, p: chunk(2, struct.pack(">QI", o, 0)),
    "hole behind the range": lambda chunk, o, l, c, p: chunk(2, struct.pack(">QI", o, l + 1)),
    "hole of a wrong size": lambda chunk, o, l, c, p: chunk(2, struct.pack(">QIB", o, l, 0)),
    "hole of 4 GiB": lambda chunk, o, l, c, p: chunk(2, struct.pack(">QI", o, 2**32 - 1)),
    "block status instead": lambda chunk, o, l, c, p: chunk(5, struct.pack(">III", 7, l, 0)),
    "a reply never asked for": lambda chunk, o, l, c, p: chunk(
        1, struct.pack(">Q", o) + bytes(l), to=c + 1
    ),
    "a reply of another time": lambda chunk, o, l, c, p: chunk(
        1, struct.pack(">Q", o) + bytes(l), to=c - (1 << 32)
    ),
    "two replies": lambda chunk, o, l, c, p: [
        chunk(1, struct.pack(">Q", o) + bytes(l)) for _ in range(2)
    ],
    "simple reply": lambda chunk, o, l, c, p: p.sendall(
        struct.pack(">IIQ", 0x67446698, 0, c) + bytes(l)
    ),
    "extended reply": lambda chunk, o, l, c, p: p.sendall(
        struct.pack(">IHHQQQ", 0x6E8A278C, 1, 1, c, o, l + 8) + bytes(l)
    ),
    "bad magic": lambda chunk, o, l, c, p: p.sendall(bytes(range(32))),
    "unknown chunk": lambda chunk, o, l, c, p: chunk(99, b"x"),
    "huge chunk": lambda chunk, o, l, c, p: chunk(1, struct.pack(">Q", o), size=2**32 - 1),
    "error without a number": lambda chunk, o, l, c, p: chunk(0x8001, struct.pack(">IH", 0, 0)),
    "error that ends early": lambda chunk, o, l, c, p: chunk(0x8001, struct.pack(">IH", 5, 100)),
    "huge error": lambda chunk, o, l, c, p: chunk(0x8001, struct.pack(">IH", 5, 0), size=1 << 30),
    "error outside of the range": lambda chunk, o, l, c, p: chunk(
        0x8002, struct.pack(">IHQ", 5, 0, o + l + 1)
    ),
    "unknown error": lambda chunk, o, l, c, p: chunk(0x8055, struct.pack(">IH", 5, 0)),
    "closed in the middle": lambda chunk, o, l, c, p: [
        chunk(1, struct.pack(">Q", o), size=l + 8),
        p.shutdown(2),
    ],
}


@pytest.mark.parametrize("what", READS)
def test_hostile_reads(ours, folder, what):
    OddNbd(folder / "e.sock", {"read": READS[what], 10: lambda reply, peer: reply(1)})
    failed = ours(
        "convert",
        "-f",
        "raw",
        "-O",
        "raw",
        f"nbd+unix:///?socket={folder}/e.sock",
        "out.raw",
        ok=False,
        timeout=20,
    )
    # What comes behind the last answer may be noticed too late to matter.
    assert (
        failed.code == 1
        and "Input/output error" in failed.err
        or (what, failed.code) == ("two replies", 0)
    )


STATUS = {
    "no extents": (lambda chunk, o, l, c, p: chunk(5, struct.pack(">I", 7)), False),
    "extent of nothing": (lambda chunk, o, l, c, p: chunk(5, struct.pack(">III", 7, 0, 0)), False),
    "another context": (lambda chunk, o, l, c, p: chunk(5, struct.pack(">III", 8, l, 0)), False),
    "half an extent": (lambda chunk, o, l, c, p: chunk(5, struct.pack(">IIH", 7, l, 0)), False),
    "extended extents": (
        lambda chunk, o, l, c, p: chunk(6, struct.pack(">IIQQ", 7, 1, l, 0)),
        False,
    ),
    "twice": (
        lambda chunk, o, l, c, p: [chunk(5, struct.pack(">III", 7, l, 0), done=i) for i in (0, 1)],
        False,
    ),
    "never": (lambda chunk, o, l, c, p: chunk(0, b""), False),
    "data instead": (lambda chunk, o, l, c, p: chunk(1, struct.pack(">Q", o) + bytes(l)), False),
    "huge": (lambda chunk, o, l, c, p: chunk(5, struct.pack(">III", 7, l, 0), size=1 << 31), False),
    "simple": (lambda chunk, o, l, c, p: p.sendall(struct.pack(">IIQ", 0x67446698, 0, c)), False),
    "longer than asked": (
        lambda chunk, o, l, c, p: chunk(5, struct.pack(">III", 7, 2**32 - 1, 0)),
        True,
    ),
    "more than needed": (
        lambda chunk, o, l, c, p: chunk(5, struct.pack(">IIIII", 7, l, 0, l, 3)),
        True,
    ),
    "shorter than asked": (
        lambda chunk, o, l, c, p: chunk(5, struct.pack(">III", 7, min(l, 65536), 0)),
        True,
    ),
    "many small ones": (
        lambda chunk, o, l, c, p: chunk(
            5, struct.pack(">I", 7) + struct.pack(">IIII", 512, 0, 512, 3) * 50000
        ),
        True,
    ),
}


@pytest.mark.parametrize("what", STATUS)
def test_hostile_block_status(ours, folder, what):
    hook, good = STATUS[what]
    OddNbd(folder / "e.sock", {"status": hook})
    done = ours(
        "map",
        "-f",
        "raw",
        "--output=json",
        f"nbd+unix:///?socket={folder}/e.sock",
        ok=good,
        timeout=20,
    )
    if good:
        assert sum(part["length"] for part in done.json()) == 1 << 20
    else:
        assert done.code == 1 and "breaks the protocol" in done.err


@pytest.mark.parametrize(
    "extents, second",
    [
        ([(5000, 1), (3192, 0)], 1),
        ([(4096, 1), (4, 0), (4, 1), (4088, 0)], 1),
        ([(4096, 1), (3904, 0), (192, 1)], 1),
        ([(4096, 1), (4096, 0)], 0),
    ],
)
def test_extents_that_are_no_units(ours, folder, extents, second):
    """A unit of which the server says several things is data, and has changed; the others keep their places."""

    def status(flags):
        def answer_status(chunk, offset, length, cookie, peer):
            parts = [*extents, (8192, 1), (length - 16384, 0)]
            chunk(
                5,
                struct.pack(">I", 7) + b"".join(struct.pack(">II", n, flags[f]) for n, f in parts),
            )

        return answer_status

    def shown(flags, context, *options):
        place = folder / f"{len(options)}.sock"
        OddNbd(place, {"status": status(flags), "block": 4096, "context": context.encode()})
        opts = ",".join(["driver=nbd", f"path={place}", *options])
        parts = ours("map", "--output=json", "--image-opts", opts, timeout=20).json()
        return [(one["start"], one["length"], one["data"]) for one in parts]

    changed = [(0, 16384)] if second else [(0, 4096), (8192, 8192)]
    bitmap = "qemu:dirty-bitmap:b"
    dirty = shown({0: 0, 1: 1}, bitmap, f"x-dirty-bitmap={bitmap}")
    assert [(at, length) for at, length, data in dirty if not data] == changed
    data = shown({0: 3, 1: 0}, "base:allocation")
    assert [(at, length) for at, length, data in data if data] == changed


def test_bytes_before_tls_are_refused(ours, folder, certificates):
    """CVE-2021-3716 from the other side: what is injected behind the answer to STARTTLS is not used."""
    OddNbd(folder / "e.sock", {5: lambda reply, peer: [reply(1), reply(1, echo=11), True][-1]})
    failed = ours(
        "info",
        f"nbds+unix:///?socket={folder}/e.sock&tls-certificates={certificates}",
        ok=False,
        timeout=20,
    )
    assert failed.code == 1 and failed.err


def test_an_url_in_an_image_names_no_files(ours, qemu, folder, certificates):
    qemu(
        "create",
        "-q",
        "-u",
        "-f",
        "qcow2",
        "-b",
        f"nbds://localhost:1/?tls-certificates={certificates}",
        "-F",
        "raw",
        "a.qcow2",
        "1M",
    )
    failed = ours("compare", "a.qcow2", "a.qcow2", ok=False)
    assert failed.code != 0 and "may not name local files" in failed.err
