"""NBD in tests: servers that end with the test, and a client that speaks by hand."""
import os
import signal
import socket
import struct
import subprocess
import time

from conftest import CAIRN

QEMU_NBD = CAIRN.parent / "compat" / "qemu-nbd"
SYSTEM_PYTHON = "/usr/bin/python3"

GREETING, IHAVEOPT, REPLY_MAGIC = 0x4E42444D41474943, 0x49484156454F5054, 0x0003E889045565A9
REQUEST, EXTENDED_REQUEST = 0x25609513, 0x21E41C71
SIMPLE, STRUCTURED, EXTENDED = 0x67446698, 0x668E33EF, 0x6E8A278C
EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO, STRUCTURED_REPLY, LIST_META, SET_META, EXT_HEADERS = (
    1,
    2,
    3,
    5,
    6,
    7,
    8,
    9,
    10,
    11,
)
ACK, SERVER, INFO_REPLY, META = 1, 2, 3, 4
(
    UNSUP,
    POLICY,
    INVALID,
    PLATFORM,
    TLS_REQD,
    UNKNOWN,
    SHUTDOWN,
    BLOCK_SIZE_REQD,
    TOO_BIG,
    EXT_REQD,
) = (0x80000000 + n for n in range(1, 11))
READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS, RESIZE = range(9)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD = (1 << n for n in range(6))
EPERM, EIO, EINVAL, ENOSPC, ENOTSUP, ESHUTDOWN = 1, 5, 22, 28, 95, 108


class Server:
    """A running program that serves at a Unix socket (or at PORT)."""

    def __init__(self, words, path, port=None, **more):
        self.path, self.port = str(path), port
        self.job = subprocess.Popen(
            [str(word) for word in words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )
        until = time.monotonic() + 20
        while True:
            try:
                self.connect().close()
                break
            except OSError:
                if self.job.poll() is not None:
                    raise AssertionError(
                        (words, self.job.returncode, self.job.stderr.read())
                    ) from None
                assert time.monotonic() < until, "the server does not listen"
                time.sleep(0.01)

    def uri(self, export="", scheme="nbd"):
        if self.port:
            return f"{scheme}://localhost:{self.port}/{export}"
        return f"{scheme}+unix:///{export}?socket={self.path}"

    def connect(self, timeout=10):
        if self.port:
            return socket.create_connection(("127.0.0.1", self.port), timeout)
        s = socket.socket(socket.AF_UNIX)
        # A socket with a timeout of Python's would not wait for a place in the queue of the server.
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(timeout), 0))
        s.connect(self.path)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 0))
        s.settimeout(timeout)
        return s

    def client(self, **more):
        return Client(self.connect(), **more)

    def alive(self):
        return self.job.poll() is None

    def memory_kib(self, what="VmRSS"):
        with open(f"/proc/{self.job.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(what))

    def stop(self, signal_number=signal.SIGTERM, timeout=15):
        if self.alive():
            self.job.send_signal(signal_number)
        code = self.job.wait(timeout)
        return code

    def end(self):
        if self.alive():
            self.job.kill()
        self.job.wait()
        self.job.stdout.close()
        self.job.stderr.close()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Closed(Exception):
    pass


class Client:
    """NBD byte by byte. FLAGS: what is answered to the greeting, None to answer nothing."""

    def __init__(self, sock, flags=3):
        self.sock = sock
        self.extended = False
        if flags is not None:
            magic, option_magic, self.server_flags = struct.unpack(">QQH", self.take(18))
            assert (magic, option_magic) == (GREETING, IHAVEOPT)
            self.send(struct.pack(">I", flags))

    def close(self):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data)

    def take(self, count):
        data = b""
        while len(data) < count:
            part = self.sock.recv(min(count - len(data), 1 << 20))
            if not part:
                raise Closed
            data += part
        return data

    def is_dropped(self):
        """Whether the server closes the connection, whatever it still says."""
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionError:
            pass
        return True

    # --- options ---

    def option(self, number, data=b"", length=None):
        self.send(
            struct.pack(">QII", IHAVEOPT, number, len(data) if length is None else length) + data
        )

    def option_reply(self):
        magic, option, kind, length = struct.unpack(">QIII", self.take(20))
        assert magic == REPLY_MAGIC
        return option, kind, self.take(length)

    def ask(self, number, data=b""):
        """The replies up to the last one: [(kind, data)…]."""
        self.option(number, data)
        replies = []
        while True:
            option, kind, payload = self.option_reply()
            assert option == number
            replies.append((kind, payload))
            if kind == ACK or kind >> 31:
                return replies

    def go(self, name="", infos=(3,), option=GO):
        name = name.encode()
        replies = self.ask(
            option,
            struct.pack(">I", len(name))
            + name
            + struct.pack(f">H{len(infos)}H", len(infos), *infos),
        )
        for kind, data in replies:
            if kind == INFO_REPLY and data[:2] == b"\0\0":
                self.size, self.flags = struct.unpack(">QH", data[2:])
        return replies

    def contexts(self, *queries, name="", option=SET_META):
        name = name.encode()
        data = struct.pack(">I", len(name)) + name + struct.pack(">I", len(queries))
        for query in queries:
            data += struct.pack(">I", len(query)) + query.encode()
        return self.ask(option, data)

    def start(self, mode="structured", contexts=(), name=""):
        """The whole handshake; the client itself."""
        if mode == "extended":
            assert self.ask(EXT_HEADERS)[-1][0] == ACK
            self.extended = True
        if mode == "structured":
            assert self.ask(STRUCTURED_REPLY)[-1][0] == ACK
        if contexts:
            assert self.contexts(*contexts, name=name)[-1][0] == ACK
        assert self.go(name)[-1][0] == ACK
        return self

    # --- requests ---

    def request(self, command, offset=0, length=0, flags=0, cookie=1, payload=b"", magic=None):
        if self.extended:
            head = struct.pack(
                ">IHHQQQ", magic or EXTENDED_REQUEST, flags, command, cookie, offset, length
            )
        else:
            head = struct.pack(">IHHQQI", magic or REQUEST, flags, command, cookie, offset, length)
        self.send(head + payload)

    def reply(self):
        """One reply, chunks gathered: (cookie, error, [(type, payload)…])."""
        chunks, error = [], 0
        while True:
            magic = struct.unpack(">I", self.take(4))[0]
            if magic == SIMPLE:
                error, cookie = struct.unpack(">IQ", self.take(12))
                return cookie, error, chunks
            if self.extended:
                assert magic == EXTENDED
                flags, kind, cookie, _, length = struct.unpack(">HHQQQ", self.take(28))
            else:
                assert magic == STRUCTURED
                flags, kind, cookie, length = struct.unpack(">HHQI", self.take(16))
            payload = self.take(length)
            if kind >> 15:
                error = struct.unpack(">I", payload[:4])[0]
            chunks.append((kind, payload))
            if flags & 1:
                return cookie, error, chunks

    def error_of(self, command, offset=0, length=0, flags=0, payload=b""):
        self.request(command, offset, length, flags, payload=payload)
        return self.reply()[1]

    def read(self, offset, length, flags=0):
        """Reads by structured or extended replies."""
        self.request(READ, offset, length, flags)
        _, error, chunks = self.reply()
        assert error == 0, error
        data = bytearray(length)
        for kind, payload in chunks:
            if kind == 1:
                at = struct.unpack(">Q", payload[:8])[0] - offset
                data[at : at + len(payload) - 8] = payload[8:]
        return bytes(data)

    def works(self):
        """The connection still answers."""
        return self.error_of(FLUSH) == 0


def nbdsh(uri, *lines, check=True):
    words = [SYSTEM_PYTHON, "-m", "nbd", "-u", uri]
    for line in lines:
        words += ["-c", line]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    if check:
        assert done.returncode == 0, (done.stdout, done.stderr)
    return done


def environment_without_activation():
    return {key: value for key, value in os.environ.items() if not key.startswith("LISTEN_")}
