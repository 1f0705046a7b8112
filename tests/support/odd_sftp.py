#!/usr/bin/python3
"""An SFTP server that misbehaves: odd_sftp.py BEHAVIOUR, as the subsystem of an sshd. Speaks version 3 on its standard streams."""
import os
import struct
import sys
import time

OUT = sys.stdout.buffer
BEHAVIOUR = sys.argv[1]
reads = 0


def string(data):
    return struct.pack(">I", len(data)) + data


def send(kind, payload):
    OUT.write(struct.pack(">IB", len(payload) + 1, kind) + payload)
    OUT.flush()


def status(ident, code):
    send(101, ident + struct.pack(">I", code) + string(b"text") + string(b""))


def take(count):
    data = sys.stdin.buffer.read(count)
    if len(data) < count:
        sys.exit(0)
    return data


def read(ident, offset, length):
    global reads
    reads += 1
    # The first reads are those of the detection of the format.
    late = reads > 2
    data = os.pread(fd, length, offset)
    if BEHAVIOUR == "short" and length > 100:
        data = data[: len(data) // 2 + 1]
    if BEHAVIOUR == "repeats":
        send(103, ident + string(data))
    if BEHAVIOUR == "more" and late:
        data += b"x" * 100
    if BEHAVIOUR == "empty" and late:
        data = b""
    if BEHAVIOUR == "fails" and late:
        return status(ident, 4)
    if BEHAVIOUR == "other_kind" and late:
        return send(102, ident + string(b"h"))
    if BEHAVIOUR == "stalls" and late:
        return
    if BEHAVIOUR == "dies" and late:
        os._exit(1)
    if BEHAVIOUR == "dies_once" and late and not os.path.exists(sys.argv[2] + ".died"):
        open(sys.argv[2] + ".died", "w").close()
        os._exit(1)
    if BEHAVIOUR == "changes" and late and not os.path.exists(sys.argv[2] + ".died"):
        open(sys.argv[2] + ".died", "w").close()
        os.utime(sys.argv[2], (1, 1))
        os._exit(1)
    if BEHAVIOUR == "long_frame" and late:
        OUT.write(struct.pack(">IB", 0x7FFFFFFF, 103) + ident)
        return OUT.flush()
    if BEHAVIOUR == "zero_frame" and late:
        OUT.write(struct.pack(">I", 0))
        return OUT.flush()
    if BEHAVIOUR == "cut_frame" and late:
        return send(103, ident + struct.pack(">I", 1000) + b"few")
    if not data and length:
        return status(ident, 1)
    send(103, ident + string(data))


fd = -1
while True:
    body = take(struct.unpack(">I", take(4))[0])
    kind, ident = body[0], body[1:5]
    if kind == 1:
        if BEHAVIOUR == "mute":
            time.sleep(60)
        if BEHAVIOUR == "old":
            send(2, struct.pack(">I", 6))
        send(2, struct.pack(">I", 3) + string(b"limits@openssh.com") + string(b"1"))
    elif kind == 200:
        # Limits that no server has.
        size = 1 << 60 if BEHAVIOUR == "limits" else 32 << 10
        send(201, ident + struct.pack(">QQQQ", size, size, size, 1))
    elif kind == 3:
        if BEHAVIOUR == "long_handle":
            send(102, ident + string(b"h" * 70000))
        fd = os.open(sys.argv[2], os.O_RDWR)
        send(102, ident + string(b"h"))
    elif kind == 8:
        if BEHAVIOUR == "no_size":
            send(105, ident + struct.pack(">I", 0))
        size = (1 << 64) - 1 if BEHAVIOUR == "huge" else os.fstat(fd).st_size
        send(105, ident + struct.pack(">IQII", 9, size, 0, int(os.fstat(fd).st_mtime)))
    elif kind == 5:
        at = 9 + struct.unpack(">I", body[5:9])[0]
        read(ident, *struct.unpack(">QI", body[at : at + 12]))
    elif kind == 6:
        status(ident, 4 if BEHAVIOUR == "full" else 0)
    else:
        status(ident, 0)
