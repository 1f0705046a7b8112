"""A Sheepdog cluster of a test: several nodes that speak the daemon's protocol and share one store in memory.

It does what the real daemon does, also where that is surprising: a second creation replaces the object, the data of snapshots are
read-only but their inodes are not, index entries that are overwritten release what they named. What a client must never do is
written to `complaints`, which the tests look at.
"""
import contextlib
import os
import queue
import socket
import struct
import threading
import time

CREATE, READ, WRITE = 0x01, 0x02, 0x03
NEW, LOCK, RELEASE, INFO, READ_VDIS, FLUSH, DELETE, DEFAULT = (
    0x11,
    0x12,
    0x13,
    0x14,
    0x15,
    0x16,
    0x17,
    0x18,
)
SUCCESS, NO_OBJ, VDI_EXIST, INVALID, LOCKED, NO_VDI, NO_BASE, NO_TAG = 0, 2, 4, 5, 7, 8, 9, 0x0E
VERSION, READONLY = 0x14, 0x1A
INODE = 1 << 63
INDEX, INDEX_END = 4664, 4198968
# Of the header of an inode.
AT_SNAPSHOT_TIME, AT_SIZE, AT_STORE, AT_SHIFT, AT_SNAP_ID, AT_VDI = 520, 536, 553, 555, 556, 560


class Request:
    def __init__(self, header, data):
        self.version, self.op, self.flags, _, self.id, self.length = struct.unpack_from(
            "<BBHIII", header
        )
        self.oid, self.cow, self.offset = (
            *struct.unpack_from("<QQ", header, 16),
            struct.unpack_from("<I", header, 40)[0],
        )
        (
            self.size,
            self.base,
            self.copies,
            self.policy,
            self.store,
            self.shift,
            self.snap,
        ) = struct.unpack_from("<QIBBBBI", header, 16)
        self.data = data
        named = self.op in (NEW, LOCK, INFO, DELETE)
        self.name, self.tag = (
            data[at : at + 256].split(b"\0")[0].decode() if named else "" for at in (0, 256)
        )


class Refused(Exception):
    """The result of a request, with the fields of its answer."""

    def __init__(self, result, vdi=0):
        super().__init__(result)
        self.result, self.vdi = result, vdi


class Store:
    """What all nodes of a cluster have."""

    def __init__(self, shift=22, locks=False):
        self.shift, self.locks_used, self.copies = shift, locks, 3
        self.objects, self.references, self.locks = {}, {}, {}
        self.vdis, self.complaints, self.log = set(), [], []
        self.guard = threading.RLock()

    # Inodes

    def inode(self, vdi):
        return self.objects[INODE | vdi << 32]

    def number(self, vdi, at, form="<I"):
        return struct.unpack_from(form, self.inode(vdi), at)[0]

    def name(self, vdi):
        return bytes(self.inode(vdi)[:256]).split(b"\0")[0].decode()

    def tag(self, vdi):
        return bytes(self.inode(vdi)[256:512]).split(b"\0")[0].decode()

    def is_snapshot(self, vdi):
        return self.number(vdi, AT_SNAPSHOT_TIME, "<Q") != 0

    def index(self, vdi):
        raw = self.inode(vdi)[INDEX:]
        return list(struct.unpack(f"<{len(raw) // 4}I", raw[: len(raw) // 4 * 4]))

    def find(self, name, tag="", snap=0):
        mine = [vdi for vdi in sorted(self.vdis) if self.name(vdi) == name]
        if not mine:
            raise Refused(NO_VDI)
        for vdi in mine:
            if tag or snap:
                if (tag and self.tag(vdi) == tag and self.is_snapshot(vdi)) or (
                    snap and self.number(vdi, AT_SNAP_ID) == snap
                ):
                    return vdi
            elif not self.is_snapshot(vdi):
                return vdi
        raise Refused(NO_TAG if tag or snap else NO_VDI)

    def new(self, request):
        name = request.name
        if not name:
            self.complaints.append("a VDI without a name")
        shift = request.shift or self.shift
        if not 20 <= shift <= 31 or request.size > 1 << (shift + 20):
            self.complaints.append(f"a VDI of {request.size} bytes, shift {shift}")
        working = None
        with contextlib.suppress(Refused):
            working = self.find(name)
        if working is not None and request.snap == 0:
            raise Refused(VDI_EXIST)
        if working is None and request.snap != 0:
            raise Refused(NO_VDI)
        if request.base and request.base not in self.vdis:
            raise Refused(NO_BASE)
        mine = [vdi for vdi in self.vdis if self.name(vdi) == name]
        if working is not None:
            struct.pack_into("<Q", self.inode(working), AT_SNAPSHOT_TIME, int(time.time()) << 32)
        elif request.base and not self.is_snapshot(request.base):
            self.complaints.append("a clone of a working VDI")
        vdi = hashed(name)
        while vdi in self.vdis:
            vdi = (vdi + 1) % (1 << 24)
        inode = bytearray(INDEX)
        inode[: len(name.encode())] = name.encode()
        index = self.index(request.base) if request.base else []
        struct.pack_into("<QQ", inode, 512, int(time.time()) << 32, 0)
        struct.pack_into("<Q", inode, AT_SIZE, request.size)
        struct.pack_into(
            "<BBBBIII",
            inode,
            552,
            request.policy,
            0,
            request.copies or self.copies,
            shift,
            max((self.number(each, AT_SNAP_ID) for each in mine), default=0) + 1,
            vdi,
            request.base,
        )
        self.objects[INODE | vdi << 32] = inode + struct.pack(f"<{len(index)}I", *index)
        for number, has in enumerate(index):
            self.count(has, number, 1)
        self.vdis.add(vdi)
        return vdi

    def count(self, vdi, number, by):
        oid = vdi << 32 | number
        if vdi:
            self.references[oid] = self.references.get(oid, 0) + by
            if self.references[oid] == 0:
                del self.references[oid]
                self.objects.pop(oid, None)

    # Operations

    def check_range(self, request, vdi):
        if request.oid & INODE:
            end = request.offset + request.length
            if end > INDEX_END or (request.offset < INDEX < end and request.op == WRITE):
                self.complaints.append(f"bytes {request.offset} to {end} of an inode")
        elif request.offset + request.length > 1 << self.number(vdi, AT_SHIFT, "<B"):
            self.complaints.append("bytes past the end of an object")

    def do_object(self, request):
        vdi = request.oid >> 32 & 0xFFFFFF
        if vdi not in self.vdis:
            raise Refused(NO_OBJ)
        self.check_range(request, vdi)
        end = request.offset + request.length
        if request.op == READ:
            if request.oid not in self.objects:
                raise Refused(NO_OBJ)
            return bytes(self.objects[request.oid][request.offset : end]).ljust(
                request.length, b"\0"
            )
        if not request.oid & INODE and self.is_snapshot(vdi):
            raise Refused(READONLY)
        if request.op == CREATE:
            if request.oid in self.objects:
                self.complaints.append("an object is created twice")
            content = bytearray()
            if request.flags & 2:
                if request.cow not in self.objects:
                    raise Refused(NO_OBJ)
                content += self.objects[request.cow]
            self.objects[request.oid] = content
        if request.oid not in self.objects:
            raise Refused(NO_OBJ)
        content = self.objects[request.oid]
        before = self.index(vdi) if request.oid & INODE and request.offset >= INDEX else None
        if len(content) < end:
            content.extend(bytes(end - len(content)))
        content[request.offset : end] = request.data
        if before is not None:
            self.index_written(request, vdi, before)
        return b""

    def index_written(self, request, vdi, before):
        first = (request.offset - INDEX) // 4
        after = self.index(vdi)
        for number in range(first, first + request.length // 4):
            old, new = before[number] if number < len(before) else 0, after[number]
            if new and new << 32 | number not in self.objects:
                self.complaints.append("the index names an object that is not there")
            self.count(new, number, 1)
            self.count(old, number, -1)

    def do_vdi(self, request, node):
        """The ID in the answer, and its data."""
        if request.op == NEW:
            return self.new(request), b""
        if request.op == INFO:
            return self.find(request.name, request.tag, request.snap), b""
        if request.op == LOCK:
            vdi = self.find(request.name)
            if self.locks_used:
                if vdi in self.locks:
                    raise Refused(LOCKED, vdi)
                self.locks[vdi] = node
            return vdi, b""
        if request.op == RELEASE:
            self.locks.pop(request.base, None)
            return 0, b""
        if request.op == DELETE:
            vdi = self.find(request.name, request.tag, request.snap)
            if not any(self.index(vdi)):
                self.inode(vdi)[:256] = bytes(256)
            return vdi, b""
        if request.op == READ_VDIS and request.length == 1 << 21:
            bitmap = bytearray(1 << 21)
            for vdi in self.vdis:
                bitmap[vdi // 8] |= 1 << vdi % 8
            return 0, bytes(bitmap)
        if request.op == DEFAULT:
            return self.shift << 16, b""
        raise Refused(INVALID)

    def answer(self, request, node=None):
        """The answer to a request, as its bytes."""
        with self.guard:
            self.log.append(request)
            result, vdi, data = SUCCESS, 0, b""
            try:
                if request.version > 2:
                    raise Refused(VERSION)
                wanted = {NEW: (256,), LOCK: (256, 512), INFO: (256, 512), DELETE: (512,)}
                if request.op in wanted and request.length not in wanted[request.op]:
                    raise Refused(INVALID)
                if request.op in (CREATE, READ, WRITE):
                    data = self.do_object(request)
                else:
                    vdi, data = self.do_vdi(request, node)
            except Refused as why:
                result, vdi = why.result, why.vdi
            if request.op == DEFAULT:
                return answered(request, result, at20=vdi)
            return answered(request, result, data, vdi)


def answered(request, result=SUCCESS, data=b"", vdi=0, **changes):
    """An answer to REQUEST, of which some fields may be changed."""
    fields = {"op": request.op, "id": request.id, "length": len(data), "at20": 0, **changes}
    return (
        struct.pack(
            "<BBHIIIIIIIQQ",
            0,
            fields["op"],
            0,
            1,
            fields["id"],
            fields["length"],
            result,
            fields["at20"],
            vdi,
            0,
            0,
            0,
        )
        + data
    )


def hashed(name):
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 % (1 << 64)
    return value % (1 << 24) or 1


class Node:
    """A daemon at a port, and at a Unix socket."""

    def __init__(self, store, path=None, port=0, delay=0):
        self.store, self.path, self.fault, self.peers, self.port = store, path, None, [], port
        self.delay = delay
        self.start()

    def start(self):
        self.listeners = [socket.create_server(("127.0.0.1", self.port))]
        self.port = self.listeners[0].getsockname()[1]
        if self.path:
            local = socket.socket(socket.AF_UNIX)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
            local.bind(str(self.path))
            local.listen()
            self.listeners.append(local)
        for listener in self.listeners:
            threading.Thread(target=self.accept, args=(listener,), daemon=True).start()

    def stop(self):
        """Dies: its port is closed, and so is every connection; what it has locked is free."""
        with self.store.guard:
            for vdi in [vdi for vdi, node in self.store.locks.items() if node is self]:
                del self.store.locks[vdi]
        for each in self.listeners + self.peers:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self.peers = []

    def accept(self, listener):
        while True:
            try:
                peer = listener.accept()[0]
            except OSError:
                return
            self.peers.append(peer)
            threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

    def serve(self, peer):
        with peer, contextlib.suppress(OSError, EOFError):
            if peer.family == socket.AF_INET:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            send = peer.sendall if self.delay == 0 else self.late(peer)
            while True:
                header = take(peer, 48)
                flags, length = struct.unpack_from("<2xH8xI", header)
                request = Request(header, take(peer, length) if flags & 1 else b"")
                request.peer = peer
                # A fault gets the request and a way to answer it as it should be, and says what is sent; None: nothing more, an exception: its argument and nothing more.
                normal = lambda request=request: self.store.answer(request, self)
                sent = normal() if self.fault is None else self.fault(request, normal)
                if sent is None:
                    return
                if isinstance(sent, Exception):
                    peer.sendall(sent.args[0])
                    return
                send(sent)

    def late(self, peer):
        """A function that sends what it gets after the delay of a far network, without holding up what follows."""
        waiting = queue.Queue()

        def send():
            with contextlib.suppress(OSError):
                while True:
                    due, sent = waiting.get()
                    time.sleep(max(0, due - time.monotonic()))
                    peer.sendall(sent)

        threading.Thread(target=send, daemon=True).start()
        return lambda sent: waiting.put((time.monotonic() + self.delay, sent))

    def url(self, vdi):
        return f"sheepdog://127.0.0.1:{self.port}/{vdi}"


def take(peer, count):
    data = bytearray()
    while len(data) < count:
        more = peer.recv(min(count - len(data), 1 << 20))
        if not more:
            raise EOFError
        data += more
    return bytes(data)


class Cluster:
    """Nodes that share a store."""

    def __init__(self, folder=None, nodes=1, ports=(), delay=0, **settings):
        self.store = Store(**settings)
        self.nodes = [
            Node(self.store, folder and folder / f"sock{i}", port, delay)
            for i, port in enumerate(ports or [0] * nodes)
        ]

    def url(self, vdi):
        return self.nodes[0].url(vdi)

    def stop(self):
        for node in self.nodes:
            node.stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
