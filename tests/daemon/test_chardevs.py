"""Character devices: what monitors say on each kind, next to qemu-storage-daemon where it says something."""
import contextlib
import os
import re
import socket
import ssl
import subprocess
import tempfile
import termios
import time
from pathlib import Path

import pytest
from conftest import CAIRN
from qmp import LIMIT, Daemon, wait_for

pytestmark = pytest.mark.any_engine

OURS = CAIRN.parent / "compat" / "qemu-storage-daemon"
REFERENCE = "qemu-storage-daemon"
HELLO = b'{"execute":"qmp_capabilities"}\n'
ASK = b'{"execute":"query-status-nope","id":1}\n'
QUIT = b'{"execute":"quit"}\n'

# The words of --chardev, the device ID "a" with a monitor where they make one.
LINES = [
    "socket,id=a",
    "socket,id=a,path=x,host=h,port=1",
    "socket,id=a,host=h",
    "socket,id=a,port=20001",
    "socket,id=a,path=x,wait=off",
    "socket,id=a,path=x,server=on,reconnect=1",
    "socket,id=a,path=x,reconnect=1,reconnect-ms=1",
    "socket,id=a,path=x,server=on,wait=off,tls-creds=t",
    "socket,id=a,path=x,tls-authz=t",
    "socket,id=a,path=x,websocket=on",
    "socket,id=a,fd=99",
    "socket,id=a,fd=x",
    "socket,id=a,path=nope",
    "socket,id=a,path=x,nodelay=foo",
    "socket,id=a,path=x,reconnect=abc",
    "null,id=a,mux=maybe",
    "null,id=a,foo=bar",
    "null,id=a,logfile=/nonexist/x",
    "file,id=a",
    "file,id=a,path=o,input-path=/nonexist/i",
    "pipe,id=a",
    "pipe,id=a,path=/nonexist/p",
    "serial,id=a",
    "serial,id=a,path=/nonexist/x",
    "parallel,id=a,path=/dev/null",
    "udp,id=a",
    "udp,id=a,host=127.0.0.1,port=bad",
    "mux,id=a",
    "mux,id=a,chardev=b",
    "hub,id=a",
    "hub,id=a,chardevs.0=b",
    "ringbuf,id=a,size=3",
    "stdio,id=a,signal=x",
    "vc,id=a",
    "id=a",
]


def refusal(program, words, folder):
    done = subprocess.run(
        [program, "--chardev", words], cwd=folder, capture_output=True, timeout=LIMIT, text=True
    )
    assert done.returncode == 1
    return done.stderr


def test_what_is_refused(tmp_path):
    for words in LINES:
        assert refusal(OURS, words, tmp_path) == refusal(REFERENCE, words, tmp_path), words


def unix(path, **options):
    return {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": path}}, **options}}


def simple(type, **data):
    return {"type": type, "data": data}


DEVICES = [
    ("null", simple("null")),
    ("ring", simple("ringbuf", size=0)),
    ("mem", simple("memory")),
    ("file", simple("file", out="out", **{"in": "/dev/null"})),
    ("pipe", simple("pipe", device="pp")),
    ("serial", simple("serial", device="/dev/null")),
    ("udpu", simple("udp", remote={"type": "unix", "data": {"path": "x"}})),
    ("mux", simple("mux", chardev="ring")),
    ("hub", simple("hub", chardevs=["mem"])),
    ("tel", unix("ts", telnet=True, wait=False)),
    ("tn", unix("tn", tn3270=True, wait=False)),
    ("ws", unix("tw", websocket=True, wait=False)),
    ("cl", unix("nonexist", server=False)),
    ("rc", unix("nonexist", server=False, **{"reconnect-ms": 5000})),
    ("rc2", unix("nonexist", server=False, **{"reconnect-ms": 500, "reconnect": 1})),
    ("wcl", unix("nonexist", server=False, websocket=True)),
    ("parallel", simple("parallel", device="/dev/null")),
    ("mux2", simple("mux", chardev="ring")),
    ("hub2", simple("hub", chardevs=[])),
    ("hub3", simple("hub", chardevs=["null", "null"])),
    ("hub4", simple("hub", chardevs=["hub"])),
    ("hub5", simple("hub", chardevs=["mux"])),
    ("hub6", simple("hub", chardevs=["null", "ring"])),
    ("muxhub", simple("mux", chardev="hub")),
    ("tls", unix("z", **{"tls-creds": "a"})),
]


def made(program):
    """What chardev-add, query-chardev and chardev-remove say."""
    said = []
    with Daemon(program) as daemon:
        (daemon.directory / "pp.in").touch()
        (daemon.directory / "pp.out").touch()
        client = daemon.client()
        for name, backend in DEVICES:
            said.append((name, client.ask("chardev-add", id=name, backend=backend)))
        devices = client.command("query-chardev")
        said.append(sorted((d["label"], d["filename"]) for d in devices if d["label"] != "qmp"))
        for name in ("mem", "hub", "muxhub", "hub", "mem", "mux", "ring", "nope"):
            said.append((name, client.ask("chardev-remove", id=name)))
        client.close()
    return said


def test_devices_are_made_as_by_the_reference():
    assert made(OURS) == made(REFERENCE)


def connected(path):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(LIMIT)
    wait_for(lambda: client.connect_ex(str(path)) == 0)
    return client


def gather(receive, until):
    """What RECEIVE() gives until it contains the bytes UNTIL."""
    bytes = b""
    while until not in bytes:
        more = receive()
        assert more, bytes
        bytes += more
    return bytes


def plain(bytes):
    """Without what the programs say of themselves."""
    return re.sub(rb'"package": "[^"]*"', b"", bytes)


@contextlib.contextmanager
def served(program, options, monitors=1):
    """A client of the daemon's socket "a", when all is set up: the reference forgets what came before."""
    with tempfile.TemporaryDirectory() as folder:
        socket_of_a = f"socket,id=a,path=s,server=on,wait=off{options}"
        words = ["--chardev", socket_of_a, *["--monitor", "a"] * monitors, "--pidfile", "pid"]
        with Daemon(program, *words, directory=folder, monitor=False):
            wait_for((Path(folder) / "pid").exists)
            client = connected(Path(folder) / "s")
            yield client
            client.close()


def talk(program, options, exchanges, monitors=1, greeting=b'"oob"]}}\r\n'):
    """What a client gets: the greeting, and what follows EXCHANGES."""
    with served(program, options, monitors) as client:
        said = [gather(lambda: client.recv(65536), greeting)]
        for sent, until in exchanges:
            client.sendall(sent)
            said.append(gather(lambda: client.recv(65536), until))
    return [plain(bytes) for bytes in said]


NOT_FOUND = b'not been found"}}\r\n'


def test_telnet():
    """Options of the client are taken out of what it says."""
    for options in (",telnet=on", ",tn3270=on"):
        exchanges = [
            (HELLO, b'{"return": {}}\r\n'),
            (b'{"execute":"query-sta\xff\xfb\x01tus","id":\xff\xfd\x03 1}\n', NOT_FOUND),
            (b'{"execute":"x\xff\xf3y","id":1}\n', NOT_FOUND),
        ]
        said = talk(OURS, options, exchanges)
        assert said[0].startswith(b"\xff")
        assert b"query-status has not" in said[2]
        assert said == talk(REFERENCE, options, exchanges)


def test_mux():
    """Two monitors on one socket, and the commands of the keyboard."""
    both = b'"oob"]}}\r\n{'
    exchanges = [
        (HELLO + ASK, NOT_FOUND),
        (b"\x01c" + HELLO + ASK, NOT_FOUND),
        (b"\x01h", b"sends C-a\n\r"),
        (b"\x01b\x01z\x01t" + ASK, NOT_FOUND),
        (ASK, NOT_FOUND),
    ]
    said = talk(OURS, ",mux=on", exchanges, 2, both)
    assert said[-1].startswith(b"[00:00:00.000] {")
    assert said == talk(REFERENCE, ",mux=on", exchanges, 2, both)


def test_mux_can_end_the_daemon(tmp_path):
    words = ["--chardev", "socket,id=a,path=s,server=on,wait=off,mux=on", "--monitor", "a"]
    with Daemon(OURS, *words, directory=tmp_path, monitor=False) as daemon:
        client = connected(tmp_path / "s")
        client.sendall(b"\x01x")
        assert b"QEMU: Terminated\n\r" in gather(lambda: client.recv(4096), b"Terminated\n\r")
        assert daemon.process.wait(LIMIT) == 0


def test_mux_has_four_places(tmp_path):
    words = ["--chardev", "null,id=a,mux=on", *["--monitor", "a"] * 5]
    done = subprocess.run([OURS, *words], capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 1
    assert done.stderr.endswith("too many uses of multiplexed chardev 'a' (maximum is 4)\n")


def test_hub(tmp_path):
    """Two sockets with one monitor: both hear all, both may speak, one may leave."""
    words = []
    for name in "bc":
        words += ["--chardev", f"socket,id={name},path={name},server=on,wait=off"]
    words += ["--chardev", "hub,id=a,chardevs.0=b,chardevs.1=c", "--monitor", "a"]
    with Daemon(OURS, *words, directory=tmp_path, monitor=False) as daemon:
        first = connected(tmp_path / "b")
        gather(lambda: first.recv(4096), b'"oob"]}}')
        first.sendall(HELLO)
        gather(lambda: first.recv(4096), b'{"return": {}}')
        second = connected(tmp_path / "c")
        second.sendall(ASK)
        assert gather(lambda: second.recv(4096), NOT_FOUND).startswith(b'{"id": 1, "error"')
        gather(lambda: first.recv(4096), NOT_FOUND)
        first.close()
        second.sendall(ASK)
        gather(lambda: second.recv(4096), NOT_FOUND)
        second.sendall(QUIT)
        gather(lambda: second.recv(4096), b'{"return": {}}')
        assert daemon.process.wait(LIMIT) == 0


def frame(payload, opcode=2):
    mask = b"\x01\x80\xff\x2a"
    data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    size = len(payload)
    head = bytes([0x80 | opcode, 0x80 | size]) if size < 126 else b""
    return (head or bytes([0x80 | opcode, 0xFE]) + size.to_bytes(2, "big")) + mask + data


REQUEST = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: binary\r\n\r\n"
)


def handshake(program, request):
    with served(program, ",websocket=on") as client:
        client.sendall(request)
        said = gather(lambda: client.recv(4096), b"\r\n\r\n" if b"GET / " in request else b"13\r\n")
    return re.sub(rb"Date: [^\r]*", b"", said.split(b"\r\n\r\n")[0].strip())


def test_websocket_handshake():
    for request in (REQUEST, b"POST / HTTP/1.1\r\n\r\n"):
        assert handshake(OURS, request) == handshake(REFERENCE, request)


def test_websocket(tmp_path):
    """Who is refused is let go, and the next client speaks in frames."""
    words = ["--chardev", "socket,id=a,path=s,server=on,wait=off,websocket=on", "--monitor", "a"]
    with Daemon(OURS, *words, directory=tmp_path, monitor=False) as daemon:
        wrong = connected(tmp_path / "s")
        wrong.sendall(b"GET /x HTTP/1.1\r\n\r\n")
        assert b" 404 " in gather(lambda: wrong.recv(4096), b"\r\n\r\n")
        assert wrong.recv(10) == b""
        client = connected(tmp_path / "s")
        client.sendall(REQUEST + frame(HELLO[:5]) + frame(HELLO[5:]) + frame(b"hey", 9))
        said = gather(lambda: client.recv(4096), b"\x82\x10" + b'{"return": {}}\r\n')
        assert b'"oob"]}}\r\n' in said
        if b"\x8a\x03hey" not in said:
            gather(lambda: client.recv(4096), b"\x8a\x03hey")
        client.sendall(frame(QUIT))
        gather(lambda: client.recv(4096), b'{"return": {}}\r\n')
        assert daemon.process.wait(LIMIT) == 0


def test_reconnect(tmp_path):
    """A client tries until somebody listens, and again when the connection has ended."""
    words = ["--chardev", "socket,id=a,path=s,reconnect-ms=50", "--monitor", "a"]
    with Daemon(OURS, *words, directory=tmp_path, monitor=False) as daemon:
        said = daemon.process.stderr.readline().decode()
        assert "Unable to connect character device a: Failed to connect to 's'" in said
        listener = socket.socket(socket.AF_UNIX)
        listener.settimeout(LIMIT)
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        for _ in range(2):
            peer, _ = listener.accept()
            peer.settimeout(LIMIT)
            gather(lambda: peer.recv(4096), b'"oob"]}}')
            peer.close()
        listener.close()
        begun = time.monotonic()
        code, _ = daemon.stop()
        assert code == 0 and time.monotonic() - begun < 5


def test_pty(tmp_path):
    """Clients of a terminal come one after the other; its name is in the reply, and there is a link."""
    with Daemon(OURS) as daemon:
        client = daemon.client()
        made = client.command("chardev-add", id="p", backend=simple("pty", path="link"))
        link = daemon.directory / "link"
        assert os.readlink(link) == made["pty"]
        assert client.command("query-chardev")[1]["filename"] == "pty:" + made["pty"]
        client.command("chardev-remove", id="p")
        assert not os.path.lexists(link)
    words = ["--chardev", "pty,id=a,path=link", "--monitor", "a"]
    with Daemon(OURS, *words, directory=tmp_path, monitor=False) as daemon:
        wait_for(lambda: os.path.lexists(tmp_path / "link"))
        for sent, until in ((HELLO + ASK, NOT_FOUND), (HELLO + QUIT, b'{"return": {}}')):
            terminal = os.open(tmp_path / "link", os.O_RDWR | os.O_NOCTTY)
            assert termios.tcgetattr(terminal)[3] & (termios.ECHO | termios.ICANON) == 0
            os.write(terminal, sent)
            # Who opens it before the daemon has seen the one before leave goes on where that was.
            said = gather(lambda: os.read(terminal, 4096), until)
            assert said.startswith(b'{"QMP"') or sent != HELLO + ASK
            os.close(terminal)
        assert daemon.process.wait(LIMIT) == 0
        assert b"char device redirected to /dev/pts/" in daemon.process.stdout.read()
    assert not os.path.lexists(tmp_path / "link")


def test_udp(tmp_path):
    """The first datagram makes a client of the peer. The reference crashes."""
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.settimeout(LIMIT)
    peer.bind(("127.0.0.1", 0))
    spare = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    spare.bind(("127.0.0.1", 0))
    port = spare.getsockname()[1]
    spare.close()
    words = (
        f"udp,id=a,host=127.0.0.1,port={peer.getsockname()[1]},localaddr=127.0.0.1,localport={port}"
    )
    with Daemon(OURS, "--chardev", words, "--monitor", "a", directory=tmp_path, monitor=False) as d:
        peer.connect(("127.0.0.1", port))
        begun = time.monotonic()
        peer.settimeout(0.2)
        said = b""
        while NOT_FOUND not in said and time.monotonic() - begun < LIMIT:
            try:
                if not said:
                    peer.send(HELLO + ASK)
                said += peer.recv(65536)
            except (ConnectionRefusedError, TimeoutError):
                pass
        assert said.startswith(b'{"QMP"') and NOT_FOUND in said
        peer.send(QUIT)
        assert d.process.wait(LIMIT) == 0


def test_pipes(tmp_path):
    os.mkfifo(tmp_path / "p.in")
    os.mkfifo(tmp_path / "p.out")
    words = ["--chardev", "pipe,id=a,path=p", "--monitor", "a"]
    with Daemon(OURS, *words, directory=tmp_path, monitor=False) as daemon:
        out = os.open(tmp_path / "p.out", os.O_RDONLY)
        gather(lambda: os.read(out, 4096), b'"oob"]}}')
        for sent, until in ((HELLO, b'{"return": {}}'), (QUIT, b'{"return": {}}')):
            # Who closes the pipe has not left: another one may go on.
            with open(tmp_path / "p.in", "wb") as pipe:
                pipe.write(sent)
            gather(lambda: os.read(out, 4096), until)
        assert daemon.process.wait(LIMIT) == 0
        os.close(out)


def test_files_rings_and_logs(tmp_path):
    """A file is read to its end; a ring keeps what a monitor says; a log gets what a client gets."""
    (tmp_path / "in").write_bytes(HELLO + ASK)
    (tmp_path / "log").write_bytes(b"old\n")
    words = ["--chardev", "file,id=f,path=out,input-path=in", "--monitor", "f"]
    words += [
        "--chardev",
        "ringbuf,id=r",
        "--monitor",
        "r",
        "--chardev",
        "null,id=n",
        "--monitor",
        "n",
    ]
    words += ["--chardev", "socket,id=l,path=l,server=on,wait=off,logfile=log,logappend=on"]
    with Daemon(OURS, *words, "--monitor", "l", directory=tmp_path) as daemon:
        wait_for(lambda: (tmp_path / "out").read_bytes().endswith(NOT_FOUND))
        logged = connected(tmp_path / "l")
        logged.sendall(HELLO)
        said = gather(lambda: logged.recv(4096), b'{"return": {}}\r\n')
        assert (tmp_path / "log").read_bytes() == b"old\n" + said
        client = daemon.client()
        greeting = client.command("ringbuf-read", device="r", size=1000)
        assert greeting.startswith('{"QMP"') and greeting.endswith('"capabilities": []}}\r\n')
        assert client.error("chardev-remove", id="r")[1] == "Chardev 'r' is busy"
        client.close()


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """Certificates of an authority for a server and a client."""
    folder = tmp_path_factory.mktemp("pki")

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    def pair(name, *words):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}-key.pem", *words)

    ca = ["-x509", "-out", "ca-cert.pem", "-subj", "/CN=ca", "-days", "9"]
    pair("ca", *ca, "-addext", "keyUsage=critical,keyCertSign")
    for name, usage in (("server", "serverAuth"), ("client", "clientAuth")):
        pair(name, "-out", "request.pem", "-subj", f"/CN={name}")
        (folder / "ext").write_text(
            f"extendedKeyUsage={usage}\nkeyUsage=digitalSignature,keyEncipherment\n"
            "basicConstraints=critical,CA:FALSE\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n"
        )
        authority = ["-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "9"]
        openssl(
            *("x509", "-req", "-in", "request.pem", "-out", f"{name}-cert.pem", *authority),
            *("-extfile", "ext"),
        )
    return folder


def spoken(stream):
    """The greeting, and the reply to what does not exist."""
    said = gather(lambda: stream.recv(4096), b'"oob"]}}\r\n')
    stream.sendall(HELLO + ASK)
    return plain(said + gather(lambda: stream.recv(4096), NOT_FOUND))


def tls_context(pki, purpose, name):
    context = ssl.create_default_context(purpose, cafile=pki / "ca-cert.pem")
    context.load_cert_chain(pki / f"{name}-cert.pem", pki / f"{name}-key.pem")
    return context


def test_tls_server(pki, tmp_path):
    """Only who is allowed speaks; who does not speak TLS, or is not allowed, is let go."""
    words = ["--object", f"tls-creds-x509,id=t,dir={pki},endpoint=server"]
    words += ["--object", "authz-simple,id=z,identity=CN=client"]
    words += ["--object", "authz-simple,id=nobody,identity=CN=else"]
    for name, authz in (("a", "z"), ("b", "nobody")):
        options = f"server=on,wait=off,tls-creds=t,tls-authz={authz}"
        words += ["--chardev", f"socket,id={name},path={name},{options}", "--monitor", name]
    context = tls_context(pki, ssl.Purpose.SERVER_AUTH, "client")
    with Daemon(OURS, *words, directory=tmp_path, monitor=False):
        clear = connected(tmp_path / "a")
        clear.sendall(HELLO)
        try:
            assert b"QMP" not in clear.recv(4096)
        except ConnectionResetError:
            pass
        clear.close()
        stream = context.wrap_socket(connected(tmp_path / "a"), server_hostname="localhost")
        assert b"query-status-nope has not been found" in spoken(stream)
        stream.close()
        with pytest.raises((OSError, AssertionError)):
            spoken(context.wrap_socket(connected(tmp_path / "b"), server_hostname="localhost"))


@pytest.mark.parametrize("program", [OURS, REFERENCE])
def test_tls_client(program, pki, tmp_path):
    context = tls_context(pki, ssl.Purpose.CLIENT_AUTH, "server")
    context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(LIMIT)
    port = listener.getsockname()[1]
    words = ["--object", f"tls-creds-x509,id=t,dir={pki},endpoint=client"]
    words += ["--chardev", f"socket,id=a,host=127.0.0.1,port={port},tls-creds=t", "--monitor", "a"]
    with Daemon(program, *words, directory=tmp_path, monitor=False):
        peer, _ = listener.accept()
        peer.settimeout(LIMIT)
        stream = context.wrap_socket(peer, server_side=True)
        assert b"query-status-nope has not been found" in spoken(stream)
        stream.close()
    listener.close()


def test_websocket_in_tls(pki, tmp_path):
    words = ["--object", f"tls-creds-x509,id=t,dir={pki},endpoint=server"]
    options = "server=on,wait=off,tls-creds=t,websocket=on"
    words += ["--chardev", f"socket,id=a,path=s,{options}", "--monitor", "a"]
    context = tls_context(pki, ssl.Purpose.SERVER_AUTH, "client")
    with Daemon(OURS, *words, directory=tmp_path, monitor=False) as daemon:
        stream = context.wrap_socket(connected(tmp_path / "s"), server_hostname="localhost")
        stream.sendall(REQUEST)
        gather(lambda: stream.recv(4096), b'"oob"]}}\r\n')
        stream.sendall(frame(HELLO) + frame(QUIT))
        gather(lambda: stream.recv(4096), b'{"return": {}}\r\n')
        assert daemon.process.wait(LIMIT) == 0
