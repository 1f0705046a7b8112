"""An iSCSI target of a test, written by hand after RFC 7143 and SBC-3: one that copies by itself, and that misbehaves where it is asked to."""
import contextlib
import socket
import struct
import threading

BLOCK = 512
NAME = "iqn.2026-01.org.example:odd"
GOOD, CHECK, BUSY = 0, 2, 8
NONE = 0xFFFFFFFF
SEGMENT = 65536


class Unit:
    """A logical unit in memory."""

    def __init__(self, number, size, content=b""):
        self.number = number
        self.data = bytearray(size)
        self.data[: len(content)] = content
        # A name of eight bytes, registered (NAA 3).
        self.designator = bytes([0x30, 0, 0, 0, 0, 0, 0, number])

    def blocks(self):
        return len(self.data) // BLOCK


class Peer(threading.Thread):
    """One connection."""

    def __init__(self, target, line):
        super().__init__(daemon=True)
        self.target, self.line = target, line
        self.status_number, self.expected = 1, 0
        self.odd = target.odd
        # Commands whose data is still to come, by their tags.
        self.waiting = {}

    def run(self):
        with contextlib.suppress(OSError, EOFError):
            while self.take():
                pass
        self.line.close()

    def exactly(self, count):
        parts = b""
        while len(parts) < count:
            got = self.line.recv(count - len(parts))
            if not got:
                raise EOFError
            parts += got
        return parts

    def send(self, opcode, flags, tag, *, at={}, data=b"", length=None):
        """A message: AT has further bytes by their position in its header."""
        head = bytearray(48)
        head[0], head[1] = opcode, flags
        head[5:8] = (len(data) if length is None else length).to_bytes(3, "big")
        head[16:20] = tag.to_bytes(4, "big")
        head[24:36] = struct.pack(">III", self.status_number, self.expected, self.expected + 64)
        for place, value in at.items():
            head[place : place + len(value)] = value
        self.line.sendall(bytes(head) + data + bytes(-len(data) % 4))

    def take(self):
        head = self.exactly(48)
        data = self.exactly(int.from_bytes(head[5:8], "big"))
        self.exactly(-len(data) % 4)
        opcode, tag = head[0] & 0x3F, int.from_bytes(head[16:20], "big")
        if opcode == 1 or not head[0] & 0x40 and opcode != 5:
            self.expected = int.from_bytes(head[24:28], "big") + (0 if head[0] & 0x40 else 1)
        if opcode == 3:
            return self.log_in(head, tag, data)
        if opcode == 0 and tag != NONE:
            self.send(0x20, 0x80, tag, at={20: b"\xff" * 4}, data=data)
            self.status_number += 1
        if opcode == 6:
            self.send(0x26, 0x80, tag)
            return False
        if opcode == 1:
            self.target.seen.append(head[32])
            self.command(head, tag, data)
        if opcode == 5:
            self.data_out(head, tag, data)
        return True

    def log_in(self, head, tag, data):
        if self.odd == "redirects":
            where = f"TargetAddress=127.0.0.1:{self.target.port}\0".encode()
            self.send(0x23, 0, tag, at={8: head[8:14], 36: b"\x01\x01"}, data=where)
            return False
        if self.odd == "login status":
            self.send(0x23, 0, tag, at={8: head[8:14], 36: b"\x77\x77"})
            return False
        if self.odd == "endless login":
            self.send(0x23, head[1] & 0x0C, tag, at={8: head[8:14]}, data=b"X-a=b\0" * 1000)
            self.status_number += 1
            return True
        self.expected = int.from_bytes(head[24:28], "big")
        stage = head[1] >> 2 & 3
        keys = [b"AuthMethod=None", b"TargetPortalGroupTag=1"]
        if stage == 1:
            keys = [
                b"HeaderDigest=None",
                b"DataDigest=None",
                b"InitialR2T=Yes",
                b"ImmediateData=No",
                b"MaxRecvDataSegmentLength=65536",
                b"MaxBurstLength=262144",
                b"FirstBurstLength=65536",
                b"MaxOutstandingR2T=1",
            ]
        if self.odd == "huge segments" and stage == 1:
            keys += [b"MaxRecvDataSegmentLength=4294967295", b"MaxBurstLength=-1"]
        self.send(
            0x23,
            head[1] & 0x8F,
            tag,
            at={8: head[8:14], 14: b"\0\1"},
            data=b"".join(key + b"\0" for key in keys),
        )
        self.status_number += 1
        return True

    # --- commands ---

    def command(self, head, tag, data):
        cdb, want = head[32:48], int.from_bytes(head[20:24], "big")
        # Single-level addressing: the number is in the second byte.
        unit = self.target.units.get(head[9])
        if unit is None:
            return self.refuse(tag, 0x2500)
        if cdb[0] in self.target.busy and self.target.busy[cdb[0]] > 0:
            self.target.busy[cdb[0]] -= 1
            return self.answer(tag, BUSY)
        known = {
            0x00: lambda: b"",
            0x12: lambda: self.inquiry(unit, cdb),
            0x1A: lambda: b"\xff" * 255 if self.odd == "modes" else bytes([3, 0, 0, 0]),
            0x25: lambda: struct.pack(">II", min(unit.blocks() - 1, NONE), BLOCK),
            0x28: lambda: self.piece(unit, *struct.unpack_from(">xxIxH", cdb)),
            0x35: lambda: b"",
            0x88: lambda: self.piece(unit, *struct.unpack_from(">xxQI", cdb)),
            0x9E: lambda: self.service(unit, cdb),
        }
        if cdb[0] in (0x2A, 0x83):
            self.waiting[tag] = (unit, cdb, bytearray(want))
            start, length = (want, 1 << 20) if self.odd == "asks too much" else (0, want)
            self.send(
                0x31,
                0x80,
                tag,
                at={8: head[8:16], 20: b"\0\0\0\7", 36: struct.pack(">III", 0, start, length)},
            )
            return None
        if cdb[0] not in known:
            return self.refuse(tag, 0x2000)
        said = known[cdb[0]]()
        if said is None:
            return self.refuse(tag, 0x2100)
        if cdb[0] in (0x28, 0x88):
            return self.read(tag, said)
        return self.data_in(tag, said[:want], want) if want else self.answer(tag)

    def piece(self, unit, block, count):
        if self.odd == "shrinks" and block >= unit.blocks() // 2:
            return None
        if block + count > unit.blocks():
            return None
        return bytes(unit.data[block * BLOCK : (block + count) * BLOCK])

    def inquiry(self, unit, cdb):
        if not cdb[1] & 1:
            kind = 0x1F if self.odd == "no disk" else 0
            # Byte 5: third-party copies.
            return bytes([kind, 0, 6, 2, 31, 8, 0, 2]) + b"CAIRN   ODD             0001"
        pages = {
            0x00: bytes([0x00, 0x83, 0xB0, 0xB2]),
            0x83: self.designators(unit),
            0xB0: bytes(2) + struct.pack(">HIII", 8, 0, 0, 0).ljust(58, b"\0"),
            0xB2: bytes([0, 0xE4, 0, 0]),
        }
        if self.odd == "pages" and cdb[2] in (0x00, 0xB0, 0xB2):
            return bytes([0, cdb[2], 0xFF, 0xFF]) + b"\xb0\xb2\x83" * 80
        if cdb[2] not in pages:
            return None
        body = pages[cdb[2]]
        return bytes([0, cdb[2]]) + len(body).to_bytes(2, "big") + body

    def designators(self, unit):
        if self.odd == "long designators":
            return bytes([1, 3, 0, 0xFF]) + b"\x30" * 20
        if self.odd == "no designators":
            return b""
        named = bytes([2, 1, 0, 8]) + b"EXAMPLE " + bytes([1, 3, 0, 8]) + unit.designator
        return named

    def service(self, unit, cdb):
        action = cdb[1] & 0x1F
        if action == 0x10:
            last, size = unit.blocks() - 1, BLOCK
            last = {"no end": (1 << 64) - 1, "past int64": (1 << 61)}.get(self.odd, last)
            size = {"blocks of 513": 513, "blocks of 0": 0, "blocks of 1 GiB": 1 << 30}.get(
                self.odd, size
            )
            # Thin, and what is unmapped is zero.
            return struct.pack(">QIBBH", last, size, 0, 0, 0xC000) + bytes(16)
        if action == 0x12:
            (first,) = struct.unpack_from(">xxQ", cdb)
            runs = [(first, unit.blocks() - first, 0)]
            if self.odd == "runs of nothing":
                runs = [(first, 0, 1)] * 20
            if self.odd == "runs elsewhere":
                runs = [(first + 5, 8, 1), (first - 1 & (1 << 64) - 1, 1 << 31, 1)]
            if self.odd == "runs past the end":
                runs = [(first, NONE, 0)] * 30
            if self.odd == "runs without end":
                return struct.pack(">II", NONE, 0) + struct.pack(">QIB3x", first, 8, 0)
            body = b"".join(struct.pack(">QIB3x", *run) for run in runs)
            return struct.pack(">II", len(body) + 4, 0) + body
        return None

    # --- answers ---

    def answer(self, tag, status=GOOD, sense=b"", at={}):
        data = len(sense).to_bytes(2, "big") + sense if sense else b""
        self.send(0x21, 0x80, tag, at={3: bytes([status]), **at}, data=data)
        self.status_number += 1

    def refuse(self, tag, why, key=5):
        sense = (
            bytes([0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0]) + why.to_bytes(2, "big") + bytes(4)
        )
        if self.odd == "no sense":
            sense = b""
        if self.odd == "cut sense":
            sense = b"\x72\x05"
        self.answer(tag, CHECK, sense)

    def data_in(self, tag, data, want, offset=0, length=None):
        """DATA in pieces, the last one with the status; LENGTH is said to be that of the last one."""
        pieces = [data[i : i + SEGMENT] for i in range(0, len(data), SEGMENT)] or [b""]
        for number, piece in enumerate(pieces):
            last = number == len(pieces) - 1
            flags = (0x81 | (2 if len(data) < want else 0)) if last else 0
            left = max(0, want - len(data)) if last else 0
            self.send(
                0x25,
                flags,
                tag,
                at={
                    20: b"\xff" * 4,
                    36: struct.pack(">III", number, (offset + number * SEGMENT) & NONE, left),
                },
                data=piece,
                length=length if last else None,
            )
        self.status_number += 1

    def read(self, tag, said):
        odd, want = self.odd, len(said)
        if odd == "short":
            return self.data_in(tag, said[: want // 2], want)
        if odd == "short in silence":
            return self.data_in(tag, said[: want // 2], want // 2)
        if odd == "long":
            return self.data_in(tag, said + b"x" * 8192, want)
        if odd == "elsewhere":
            return self.data_in(tag, said, want, offset=0xFFF00000)
        if odd == "past the buffer":
            return self.data_in(tag, said, want, offset=want)
        if odd == "unknown tag":
            self.data_in(0x12345678, said, want)
        if odd == "twice":
            self.data_in(tag, said, want)
        if odd == "rejects":
            return self.send(0x3F, 0x80, NONE, at={2: b"\x09"}, data=bytes(48))
        if odd == "unknown opcode":
            return self.send(0x3C, 0x80, tag, data=said[:512])
        if odd == "asks to log out":
            self.send(0x32, 0x80, NONE, at={36: bytes([1, 0, 0, 0, 0, 0, 0, 10])})
        if odd == "status alone":
            return self.answer(tag)
        if odd == "fails":
            return self.refuse(tag, 0x1100, key=3)
        if odd in ("cuts once", "cuts"):
            if odd == "cuts once":
                self.target.odd = None
            self.data_in(tag, said[: want // 2 - 512], want, length=SEGMENT)
            raise EOFError
        if odd == "stalls":
            self.data_in(tag, said[: want // 2 - 512], want, length=SEGMENT)
            while self.line.recv(SEGMENT):
                pass
            raise EOFError
        return self.data_in(tag, said, want)

    def data_out(self, head, tag, data):
        if tag not in self.waiting:
            return
        unit, cdb, buffer = self.waiting[tag]
        offset = int.from_bytes(head[40:44], "big")
        buffer[offset : offset + len(data)] = data
        if not head[1] & 0x80:
            return
        del self.waiting[tag]
        if cdb[0] == 0x2A:
            block, count = struct.unpack_from(">xxIxH", cdb)
            if block + count > unit.blocks():
                return self.refuse(tag, 0x2100)
            unit.data[block * BLOCK : (block + count) * BLOCK] = buffer
            return self.answer(tag)
        return self.extended_copy(tag, bytes(buffer))

    def extended_copy(self, tag, list_):
        """EXTENDED COPY (LID1) with one segment, block to block."""
        if self.odd in ("no copies", "copy fails"):
            return self.refuse(tag, *((0x2000,) if self.odd == "no copies" else (0x0D00, 3)))
        targets, segments = struct.unpack_from(">xxH4xI", list_)
        assert (targets, segments, len(list_)) == (64, 28, 108)
        units = []
        for at in 16, 48:
            kind, code, type_, length = struct.unpack_from(">BxxxBBxB", list_, at)
            assert (kind, code, type_) == (0xE4, 1, 3)
            assert int.from_bytes(list_[at + 29 : at + 32], "big") == BLOCK
            wanted = list_[at + 8 : at + 8 + length]
            units += [one for one in self.target.units.values() if one.designator == wanted]
        kind, source, target, count, first, to = struct.unpack_from(">BxxxHHxxHQQ", list_, 80)
        assert kind == 2 and len(units) == 2
        content = units[source].data[first * BLOCK : (first + count) * BLOCK]
        assert len(content) == count * BLOCK and to + count <= units[target].blocks()
        units[target].data[to * BLOCK : (to + count) * BLOCK] = content
        self.target.copied += count * BLOCK
        return self.answer(tag)


class OddTarget:
    """Listens until it is closed. ODD names what is wrong with it, BUSY how often commands (by their first byte) are answered by that."""

    def __init__(self, units, odd=None, busy=None):
        self.units = {unit.number: unit for unit in units}
        self.odd, self.busy = odd, busy or {}
        self.seen, self.copied = [], 0
        self.lines = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                line = self.listener.accept()[0]
                line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.lines.append(line)
                Peer(self, line).start()

    def url(self, number=1):
        return f"iscsi://127.0.0.1:{self.port}/{NAME}/{number}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()
        for line in self.lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
