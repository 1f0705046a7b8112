"""An NFS server of version 3 that misbehaves: one file, and the mount service, on one port without a port mapper."""
import os
import socket
import struct
import threading
import time

MOUNT, NFS = 100005, 100003
NULL, GETATTR, SETATTR, LOOKUP, ACCESS, READ, WRITE, CREATE = 0, 1, 2, 3, 4, 6, 7, 8
FSSTAT, FSINFO, PATHCONF, COMMIT = 18, 19, 20, 21
JUKEBOX, EIO, STALE, NOENT = 10008, 5, 70, 2


def opaque(data):
    return struct.pack(">I", len(data)) + data + bytes(-len(data) % 4)


class OddNfs:
    """Serves the file PATH as /exp/disk to everybody. `turns` counts the calls of each procedure."""

    def __init__(self, path, behaviour):
        self.path, self.behaviour = path, behaviour
        self.turns, self.lock, self.peers = {}, threading.Lock(), []
        self.mounts = 0  # that were asked for and not answered
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def url(self, more=""):
        return f"nfs://127.0.0.1/exp/disk?nfsport={self.port}&mountport={self.port}{more}"

    def stop(self):
        # Closing alone does not wake who accepts.
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        self.cut()

    def cut(self):
        for peer in self.peers:
            try:
                peer.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def accept(self):
        while True:
            try:
                peer = self.listener.accept()[0]
            except OSError:
                return
            self.peers.append(peer)
            threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

    @staticmethod
    def take(peer, count):
        data = b""
        while len(data) < count:
            part = peer.recv(count - len(data))
            if not part:
                raise OSError
            data += part
        return data

    def serve(self, peer):
        held = []
        try:
            while True:
                length = struct.unpack(">I", self.take(peer, 4))[0] & 0x7FFFFFFF
                call = self.take(peer, length)
                xid, _, _, program, _, procedure = struct.unpack(">6I", call[:24])
                at = 24
                for _ in range(2):
                    at += 8 + (struct.unpack(">I", call[at + 4 : at + 8])[0] + 3) // 4 * 4
                body = (
                    self.mount(procedure)
                    if program == MOUNT
                    else self.nfs(procedure, call[at:], peer)
                )
                if body is None:
                    continue
                reply = struct.pack(">6I", xid, 1, 0, 0, 0, 0) + body
                self.send(peer, procedure if program == NFS else None, reply, held)
        except OSError:
            peer.close()

    def send(self, peer, procedure, reply, held):
        late = procedure == READ and self.turns[READ] > 2
        if late and self.behaviour == "reversed":
            # Answers in pairs, the later one first.
            held.append(reply)
            if len(held) < 2:
                threading.Timer(0.3, self.release, (peer, held)).start()
            return self.release(peer, held) if len(held) == 2 else None
        if late and self.behaviour == "other_xid":
            reply = b"\xff\xff\xff\xff" + reply[4:]
        if late and self.behaviour == "denied":
            reply = reply[:4] + struct.pack(">4I", 1, 1, 1, 1)
        if late and self.behaviour == "cut_record":
            peer.sendall(struct.pack(">I", 0x80000000 | len(reply)) + reply[:40])
            raise OSError
        if late and self.behaviour == "long_record":
            peer.sendall(struct.pack(">I", 0xFFFFFFFF) + reply)
            while True:
                peer.sendall(bytes(1 << 20))
        if late and self.behaviour == "noise":
            peer.sendall(b"\xff" * 4096)
            raise OSError
        record = struct.pack(">I", 0x80000000 | len(reply)) + reply
        if late and self.behaviour == "fragments":
            parts = [reply[i : i + 1000] for i in range(0, len(reply), 1000)]
            last = [0] * (len(parts) - 1) + [0x80000000]
            record = b"".join(
                struct.pack(">I", bit | len(part)) + part for bit, part in zip(last, parts)
            )
        peer.sendall(record * (2 if late and self.behaviour == "repeats" else 1))

    def release(self, peer, held):
        replies, held[:] = list(reversed(held)), []
        try:
            for reply in replies:
                peer.sendall(struct.pack(">I", 0x80000000 | len(reply)) + reply)
        except OSError:
            pass

    def mount(self, procedure):
        if self.behaviour == "mute_mount" and procedure == 1:
            self.mounts += 1
            return None
        if procedure == 1:
            if self.behaviour == "mount_denied":
                return struct.pack(">I", 13)
            handle = b"h" * (60000 if self.behaviour == "long_handle" else 32)
            return struct.pack(">I", 0) + opaque(handle) + struct.pack(">2I", 1, 1)
        # The list of exports, which is empty.
        return struct.pack(">I", 0) if procedure == 5 else b""

    def attributes(self, directory=False):
        status = os.stat(self.path)
        size = {"huge": (1 << 64) - 1, "shrunk": status.st_size + (1 << 20)}.get(
            self.behaviour, status.st_size
        )
        inode = 7
        if self.behaviour == "replaced" and self.turns.get(READ, 0) > 2:
            inode = 8
        kind = 2 if directory or self.behaviour == "directory" else 1
        numbers = struct.pack(">5I", kind, 0o40755 if kind == 2 else 0o100600, 1, 0, 0)
        return (
            numbers
            + struct.pack(
                ">QQIIQQ", size, status.st_blocks * 512, 0, 0, 3, 1 if directory else inode
            )
            + struct.pack(">6I", 1, 0, int(status.st_mtime), 0, 1, 0)
        )

    def nfs(self, procedure, call, peer):
        with self.lock:
            self.turns[procedure] = self.turns.get(procedure, 0) + 1
            turn = self.turns[procedure]
        # The handle comes first: the root's or the file's.
        handle_end = 4 + (struct.unpack(">I", call[:4])[0] + 3) // 4 * 4 if len(call) >= 4 else 0
        root = call[4:5] == b"h"
        rest = call[handle_end:]
        ok, some = struct.pack(">I", 0), struct.pack(">I", 1)
        if procedure == NULL:
            return b""
        if procedure == GETATTR:
            return ok + self.attributes(root)
        if procedure == LOOKUP:
            if b"disk" not in rest:
                return struct.pack(">I", NOENT) + struct.pack(">I", 0)
            return ok + opaque(b"f" * 32) + some + self.attributes() + some + self.attributes(True)
        if procedure == ACCESS:
            return ok + some + self.attributes(root) + rest[:4]
        if procedure == FSINFO:
            most = {"no_room": 0, "much_room": 0xFFFFFFFF}.get(self.behaviour, 65536)
            return (
                ok
                + some
                + self.attributes(True)
                + struct.pack(">7IQ2II", *[most, most, 1] * 2, most, (1 << 63) - 1, 0, 1, 27)
            )
        if procedure in (FSSTAT, PATHCONF):
            return ok + struct.pack(">I", 0) + bytes(52)
        if procedure == SETATTR:
            return ok + struct.pack(">2I", 0, 0)
        if procedure == COMMIT:
            code = EIO if self.behaviour == "commit_fails" else 0
            return (
                struct.pack(">I", code)
                + struct.pack(">2I", 0, 0)
                + (b"anotherr" if self.behaviour == "forgets" else b"verifier")
            )
        if procedure == READ:
            return self.read(turn, *struct.unpack(">QI", rest[:12]), peer)
        if procedure == WRITE:
            return self.write(turn, rest)
        return struct.pack(">I", 10004)

    def read(self, turn, offset, length, peer):
        late, behaviour = turn > 2, self.behaviour
        if late and behaviour == "stalls":
            return None
        if late and behaviour in ("dies", "replaced"):
            raise OSError
        if turn == 5 and behaviour == "dies_once":
            raise OSError
        if turn == 4 and behaviour == "later":
            return struct.pack(">2I", JUKEBOX, 0)
        if late and behaviour in ("fails", "stale"):
            return struct.pack(">2I", EIO if behaviour == "fails" else STALE, 0)
        with open(self.path, "rb") as file:
            data = os.pread(file.fileno(), length, offset)
        count = len(data)
        if behaviour == "short" and length > 100:
            data, count = data[: len(data) // 2 + 1], len(data) // 2 + 1
        if late and behaviour == "empty":
            data, count = b"", 0
        if late and behaviour == "more":
            data, count = data + b"x" * 4096, count + 4096
        if late and behaviour == "count_lies":
            data = data[:4]
        if late and behaviour == "length_lies":
            body = struct.pack(">5I", 0, 0, count, 0, 0x7FFFFFF0) + data
            return body
        if late and behaviour == "slow":
            time.sleep(0.05)
        return struct.pack(">4I", 0, 0, count, 0) + opaque(data)

    def write(self, turn, rest):
        offset, count = struct.unpack(">QI", rest[:12])
        data = rest[20 : 20 + count]
        if self.behaviour == "full":
            return struct.pack(">3I", 28, 0, 0)
        if self.behaviour == "write_dies" and turn == 3:
            raise OSError
        done = {"writes_less": len(data) // 2 + 1, "writes_nothing": 0, "writes_more": count + 1000}
        done = done.get(self.behaviour, count)
        with open(self.path, "r+b") as file:
            os.pwrite(file.fileno(), data[:done], offset)
        return struct.pack(">5I", 0, 0, 0, done, 0) + b"verifier"
