"""A front end of vhost-user-blk by hand: memory, rings and messages as a virtual machine has them, well behaved or not."""
import array
import mmap
import os
import select
import socket
import struct
import time

(
    GET_FEATURES,
    SET_FEATURES,
    SET_OWNER,
    RESET_OWNER,
    SET_MEM_TABLE,
    SET_LOG_BASE,
    SET_LOG_FD,
    SET_VRING_NUM,
    SET_VRING_ADDR,
    SET_VRING_BASE,
    GET_VRING_BASE,
    SET_VRING_KICK,
    SET_VRING_CALL,
    SET_VRING_ERR,
    GET_PROTOCOL_FEATURES,
    SET_PROTOCOL_FEATURES,
    GET_QUEUE_NUM,
    SET_VRING_ENABLE,
) = range(1, 19)
SET_BACKEND_REQ_FD, GET_CONFIG, SET_CONFIG, GET_INFLIGHT_FD, SET_INFLIGHT_FD = 21, 24, 25, 31, 32
GET_MAX_MEM_SLOTS, ADD_MEM_REG, REM_MEM_REG = 36, 37, 38
NEED_REPLY = 8

FLUSH, CONFIG_WCE, INDIRECT, EVENT_IDX = 1 << 9, 1 << 11, 1 << 28, 1 << 29
LOG_ALL, PROTOCOL, VERSION_1 = 1 << 26, 1 << 30, 1 << 32
REPLY_ACK, CONFIG, INFLIGHT = 1 << 3, 1 << 9, 1 << 12
USUAL = FLUSH | CONFIG_WCE | INDIRECT | EVENT_IDX | PROTOCOL | VERSION_1

IN, OUT, FLUSH_CACHE, GET_ID, DISCARD, WRITE_ZEROES = 0, 1, 4, 8, 11, 13
OK, IOERR, UNSUPP = 0, 1, 2
NEXT, WRITE, TABLE = 1, 2, 4

MEMORY = 8 << 20
GUEST, USER = 1 << 32, 0x7F0000000000  # where the memory is, for the guest and for the front end
RINGS, BUFFERS = 1 << 20, 1 << 16  # of the memory: where rings begin (one each 64 KiB) and buffers


def is_ready(descriptor, seconds):
    # Not select(): a run of many tests has descriptors beyond its limit.
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def wait_for(condition, what, seconds=30):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.002)


class Gone(Exception):
    """The back end has cut the connection."""


class Queue:
    def __init__(self, owner, index, size):
        self.owner, self.index, self.size = owner, index, size
        self.base = RINGS + index * 65536
        self.available, self.used = self.base + size * 16, (self.base + size * 18 + 6 + 3) & ~3
        self.kick = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.call = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.error = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.next_descriptor = self.made = self.seen = 0

    def setup(self, base=0, **more):
        say = self.owner.order
        say(SET_VRING_NUM, struct.pack("<II", self.index, more.get("entries", self.size)))
        say(SET_VRING_BASE, struct.pack("<II", self.index, base))
        say(SET_VRING_ADDR, self.addresses(**more))
        say(SET_VRING_CALL, struct.pack("<Q", self.index), [self.call])
        say(SET_VRING_ERR, struct.pack("<Q", self.index), [self.error])
        say(SET_VRING_KICK, struct.pack("<Q", self.index), [self.kick])
        say(SET_VRING_ENABLE, struct.pack("<II", self.index, 1))
        self.made = base
        return self

    def addresses(self, descriptors=None, used=None, available=None, flags=0, **_):
        return struct.pack(
            "<IIQQQQ",
            self.index,
            flags,
            USER + self.base if descriptors is None else descriptors,
            USER + self.used if used is None else used,
            USER + self.available if available is None else available,
            GUEST + self.used,
        )

    def put(self, number, address, length, flags=0, following=0):
        self.owner.write(
            self.base + number * 16, struct.pack("<QIHH", address, length, flags, following)
        )

    def chain(self, parts):
        """PARTS: (offset in the memory, length, written by the device); the number of the first descriptor."""
        first = self.next_descriptor
        for i, (offset, length, write) in enumerate(parts):
            number = (first + i) % self.size
            last = i + 1 == len(parts)
            self.put(
                number,
                GUEST + offset,
                length,
                (WRITE if write else 0) | (0 if last else NEXT),
                (number + 1) % self.size,
            )
        self.next_descriptor = (first + len(parts)) % self.size
        return first

    def offer(self, *heads):
        for head in heads:
            self.owner.write(
                self.available + 4 + 2 * (self.made % self.size), struct.pack("<H", head)
            )
            self.made = (self.made + 1) & 0xFFFF
            self.owner.write(self.available + 2, struct.pack("<H", self.made))
        os.eventfd_write(self.kick, 1)

    def call_at_next(self):
        """Has the guest called for the next answer, where events have indexes."""
        self.owner.write(self.available + 4 + 2 * self.size, struct.pack("<H", self.seen))

    def used_index(self):
        return struct.unpack("<H", self.owner.read(self.used + 2, 2))[0]

    def answers(self, count):
        """The next COUNT answers: (head, length)."""
        got = []
        while len(got) < count:
            wait_for(lambda: self.used_index() != self.seen, "no answer")
            at = self.used + 4 + 8 * (self.seen % self.size)
            got.append(struct.unpack("<II", self.owner.read(at, 8)))
            self.seen = (self.seen + 1) & 0xFFFF
        return got

    def called(self, seconds=20):
        return is_ready(self.call, seconds) and os.eventfd_read(self.call)

    def failed(self, seconds=20):
        return is_ready(self.error, seconds)

    # --- whole requests, one at a time ---

    def request(self, kind, sector=0, data=b"", room=0, at=BUFFERS, parts=None):
        """Does one; (status, what was written to ROOM bytes)."""
        owner = self.owner
        owner.write(at, struct.pack("<IIQ", kind, 0, sector) + data)
        status = at + 16 + len(data) + room
        owner.write(status, b"\xff")
        chain = [(at, 16, False)]
        if parts:
            begin = at + 16
            for length in parts:
                chain.append((begin, length, room != 0))
                begin += length
        elif data or room:
            chain.append((at + 16, len(data) or room, room != 0))
        chain.append((status, 1, True))
        self.offer(self.chain(chain))
        self.answers(1)
        return owner.read(status, 1)[0], owner.read(at + 16 + len(data), room)

    def read(self, sector, length, **more):
        return self.request(IN, sector, room=length, **more)

    def write(self, sector, data, **more):
        return self.request(OUT, sector, data, **more)[0]

    def flush(self):
        return self.request(FLUSH_CACHE)[0]

    def range(self, kind, sector, sectors, flags=0):
        return self.request(kind, 0, struct.pack("<QII", sector, sectors, flags))[0]

    def stop(self):
        answer = self.owner.ask(GET_VRING_BASE, struct.pack("<II", self.index, 0))
        return struct.unpack("<II", answer)[1]


class FrontEnd:
    def __init__(self, path, features=USUAL, memory=None, setup=True):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(str(path))
        self.file = memory if memory is not None else self.new_memory()
        self.map = mmap.mmap(self.file, MEMORY)
        self.files, self.inflight = [], None
        if setup:
            self.begin(features)

    @staticmethod
    def new_memory(size=MEMORY):
        file = os.memfd_create("guest")
        os.ftruncate(file, size)
        return file

    def begin(self, features=USUAL):
        self.order(SET_OWNER)
        self.features = self.number(GET_FEATURES)
        self.protocol = self.number(GET_PROTOCOL_FEATURES)
        self.order(SET_PROTOCOL_FEATURES, struct.pack("<Q", self.protocol))
        self.order(SET_FEATURES, struct.pack("<Q", features))
        self.order(SET_MEM_TABLE, self.table(), [self.file])

    @staticmethod
    def region(guest=GUEST, size=MEMORY, user=USER, offset=0):
        return struct.pack("<QQQQ", guest, size, user, offset)

    @classmethod
    def table(cls, *regions):
        regions = regions or (cls.region(),)
        return struct.pack("<II", len(regions), 0) + b"".join(regions)

    def read(self, offset, length):
        return self.map[offset : offset + length]

    def write(self, offset, data):
        self.map[offset : offset + len(data)] = data

    # --- messages ---

    def send(self, kind, payload=b"", files=(), flags=1, size=None):
        header = struct.pack("<III", kind, flags, len(payload) if size is None else size)
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
        try:
            self.socket.sendmsg([header + payload], control)
        except (BrokenPipeError, ConnectionResetError):
            raise Gone from None

    def receive(self):
        """An answer: its kind and payload; the files that came are kept."""
        data, self.files = b"", []
        while len(data) < 12 or len(data) < 12 + struct.unpack_from("<I", data, 8)[0]:
            try:
                part, files, _, _ = socket.recv_fds(self.socket, 4096, 4)
            except ConnectionResetError:
                raise Gone from None
            if not part:
                raise Gone
            data += part
            self.files += files
        return struct.unpack_from("<I", data)[0], data[12:]

    def ask(self, kind, payload=b"", files=(), flags=1):
        self.send(kind, payload, files, flags)
        answered, data = self.receive()
        assert answered == kind
        return data

    def number(self, kind):
        return struct.unpack("<Q", self.ask(kind))[0]

    # Without an answer of its own.
    order = send

    def accepted(self, kind, payload=b"", files=()):
        """Whether the back end did what was asked for."""
        return struct.unpack("<Q", self.ask(kind, payload, files, 1 | NEED_REPLY))[0] == 0

    def config(self, offset=0, size=60):
        return self.ask(GET_CONFIG, struct.pack("<III", offset, size, 0) + bytes(size))[12:]

    def is_cut(self):
        try:
            while True:
                self.receive()
        except Gone:
            return True

    def queue(self, index=0, size=64, **more):
        return Queue(self, index, size).setup(**more)

    def keep_inflight(self, queues=1, size=64):
        """Agrees on a record of requests under way; its file."""
        answer = self.ask(GET_INFLIGHT_FD, struct.pack("<QQHHI", 0, 0, queues, size, 0))
        self.inflight = (answer, self.files[0])
        self.give_inflight(self.inflight)
        return self.inflight

    def give_inflight(self, inflight):
        self.order(SET_INFLIGHT_FD, inflight[0], [inflight[1]])

    def leave(self):
        self.socket.close()
