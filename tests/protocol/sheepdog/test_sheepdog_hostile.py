"""Daemons that die, come back, lie, stall, cut, repeat and answer out of order: none makes us hang, crash or read a wrong byte."""
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest

from conftest import CAIRN, sparse_disk
from support import sheep
from support.sheep import CREATE, INFO, LOCK, NEW, READ, READ_VDIS, WRITE, Cluster, answered

pytestmark = pytest.mark.any_engine
MIB = 1 << 20
SIZE = 12 * MIB
CONTENT = random.Random(3).randbytes(SIZE)


@pytest.fixture
def cluster(folder):
    """With a VDI "disk" that is full, and two nodes."""
    with Cluster(folder, nodes=2) as running:
        make(running, "disk", CONTENT)
        yield running


def make(cluster, name, content):
    """A VDI without a client."""
    request = sheep.Request(bytes(48), b"")
    request.name, request.op, request.size = name, NEW, len(content)
    store, vdi = cluster.store, cluster.store.new(request)
    for at in range(0, len(content), 4 * MIB):
        store.objects[vdi << 32 | at // (4 * MIB)] = bytearray(content[at : at + 4 * MIB])
        store.inode(vdi).extend(struct.pack("<I", vdi))
        store.count(vdi, at // (4 * MIB), 1)
    return vdi


def described(cluster, vdi="disk", nodes=1, **options):
    servers = [{"host": "127.0.0.1", "port": str(node.port)} for node in cluster.nodes[:nodes]]
    return "json:" + json.dumps(
        {
            "driver": "raw",
            "file": {
                "driver": "sheepdog",
                "vdi": vdi,
                "server": servers if nodes > 1 else servers[0],
                "timeout": 2,
                **options,
            },
        }
    )


# Runs a program from a small process, whose memory does not count as that of the program.
MEASURE = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024, done.returncode, done.stdout)
"""


def run(*words, timeout=60):
    """Exit code, what was said, seconds and MiB of memory."""
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, CAIRN, *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=timeout,
        check=True,
    )
    mib, code, said = done.stdout.split(" ", 2)
    return int(code), said, time.monotonic() - begun, int(mib)


def each(op, then):
    """A fault of every request of one kind."""

    def fault(request, normal):
        return then(request, normal) if request.op == op else normal()

    return fault


def data_reads(then):
    """A fault of the reads of objects with data."""

    def fault(request, normal):
        hit = request.op == READ and not request.oid & sheep.INODE
        return then(request, normal) if hit else normal()

    return fault


def in_inode(at, form, value):
    """Other bytes at a place of the inode."""

    def fault(request, normal):
        sent = normal()
        if request.op != READ or not request.oid & sheep.INODE:
            return sent
        begin = at - request.offset
        patch = struct.pack(form, value) if form else value
        if not 0 <= begin <= request.length - len(patch):
            return sent
        sent = bytearray(sent)
        sent[48 + begin : 48 + begin + len(patch)] = patch
        return bytes(sent)

    return fault


LIES = {
    "unknown id": (
        each(READ, lambda r, n: answered(r, data=bytes(r.length), id=r.id ^ 0x4000)),
        "answers a request that was not made",
    ),
    "other operation": (
        each(READ, lambda r, n: answered(r, data=bytes(r.length), op=WRITE)),
        "with the code of another operation",
    ),
    "longer than asked": (
        each(READ, lambda r, n: answered(r, data=bytes(r.length + 1))),
        "bytes where",
    ),
    "very long": (
        each(READ, lambda r, n: answered(r, length=0xFFFFFFFF)),
        "sends 4294967295 bytes",
    ),
    "data for a name": (
        each(INFO, lambda r, n: answered(r, data=bytes(4096), vdi=1)),
        "sends 4096 bytes where 0",
    ),
    "outside": (
        data_reads(lambda r, n: shifted(r, n, 100, r.length - 50)),
        "data outside of the range",
    ),
    "far outside": (
        data_reads(lambda r, n: shifted(r, n, 100, 1 << 63)),
        "data outside of the range",
    ),
    "twice": (each(READ, lambda r, n: (sent := n()) + sent), "answers a request that was not made"),
    "noise": (
        each(INFO, lambda r, n: b"HTTP/1.1 400 Bad Request\r\n\r\n" * 9),
        "breaks the protocol",
    ),
    "no such result": (each(INFO, lambda r, n: answered(r, result=0x4242)), "error 16962"),
    "not formatted": (each(INFO, lambda r, n: answered(r, result=0x16)), "is not formatted yet"),
    "VDI 0": (each(INFO, lambda r, n: answered(r, vdi=0)), "which cannot exist"),
    "VDI too large": (each(INFO, lambda r, n: answered(r, vdi=1 << 24)), "which cannot exist"),
    "inode of another": (in_inode(sheep.AT_VDI, "<I", 5), "is that of the VDI 5"),
    "other name": (in_inode(0, None, b"other\0"), "has another name"),
    "shift of 63": (in_inode(sheep.AT_SHIFT, "<B", 63), "has objects of 2^63 bytes"),
    "shift of 0": (in_inode(sheep.AT_SHIFT, "<B", 0), "has objects of 2^0 bytes"),
    "vast size": (in_inode(sheep.AT_SIZE, "<Q", 1 << 63), "more than its index can hold"),
    "entry too large": (in_inode(sheep.INDEX + 4, "<I", 1 << 24), "which cannot exist"),
    "no such object": (in_inode(sheep.INDEX + 4, "<I", 77), "there is no such object"),
    "always outdated": (data_reads(lambda r, n: answered(r, result=sheep.READONLY)), "read-only"),
    "always busy": (each(INFO, lambda r, n: answered(r, result=0x8F)), "the daemon is busy"),
    "silence": (each(READ, lambda r, n: b""), "has not answered for 2 seconds"),
    "hanging up": (each(READ, lambda r, n: None), "closed the connection"),
    "cut in the header": (each(READ, lambda r, n: cut(n, 20)), "before all data were read"),
    "cut in the data": (
        data_reads(lambda r, n: cut(n, 5000)),
        "there is no connection to the Sheepdog cluster",
    ),
}


def shifted(request, normal, count, offset):
    """An answer to a read with COUNT of its bytes, which belong at OFFSET."""
    sent = bytearray(answered(request, data=normal()[48 : 48 + count]))
    struct.pack_into("<Q", sent, 24, offset)
    return bytes(sent)


def cut(normal, count):
    """Only the first bytes of the answer, and then nothing more."""
    return EOFError(normal()[:count])


@pytest.mark.parametrize("name", LIES, ids=lambda name: name.replace(" ", "-"))
def test_lies(cluster, folder, name):
    fault, says = LIES[name]
    cluster.nodes[0].fault = fault
    code, said, seconds, mib = run("convert", "-O", "raw", described(cluster), "out.raw")
    assert code == 1 and says in said, said
    assert seconds < 20 and mib < 300, (seconds, mib)


def test_lies_while_it_is_written(cluster, folder):
    (folder / "new.raw").write_bytes(CONTENT[::-1])
    for op, then, says in (
        (LOCK, lambda r, n: answered(r, vdi=1 << 30), "which cannot exist"),
        (WRITE, lambda r, n: answered(r, result=0x15), "no space is left in the cluster"),
        (WRITE, lambda r, n: answered(r, result=sheep.READONLY), "read-only"),
        (WRITE, lambda r, n: answered(r, data=b"more"), "sends 4 bytes where 0"),
        (WRITE, lambda r, n: answered(r, op=CREATE), "the code of another operation"),
        (WRITE, lambda r, n: b"", "has not answered for 2 seconds"),
    ):
        cluster.nodes[0].fault = each(op, then)
        code, said, seconds, _ = run("convert", "-n", "-O", "raw", "new.raw", described(cluster))
        assert code == 1 and says in said and seconds < 20, (says, said)


def test_zeroes_that_are_left_out(cluster, folder):
    """A daemon may send the part of an object alone that is not zero."""
    content = bytes(MIB) + CONTENT[: 2 * MIB] + bytes(3 * MIB)
    make(cluster, "sparse", content)

    def fault(request, normal):
        data = normal()[48:]
        inner = data.strip(b"\0")
        at = data.index(inner) if inner else 0
        return shifted(request, lambda: bytes(48) + inner, len(inner), at)

    cluster.nodes[0].fault = data_reads(fault)
    code, said, _, _ = run("convert", "-O", "raw", described(cluster, "sparse"), "out.raw")
    assert code == 0, said
    assert (folder / "out.raw").read_bytes() == content


def test_out_of_order(cluster, folder):
    """The answer to a read waits for that to the next request of its connection, if there is one."""
    held, lock, swapped = {}, threading.Lock(), []

    def flush(peer, sent):
        with lock:
            if held.get(peer) is sent:
                del held[peer]
                peer.sendall(sent)

    def fault(request, normal):
        sent = normal()
        with lock:
            before = held.pop(request.peer, None)
            if before is not None:
                swapped.append(request)
                return sent + before
            if request.op != READ or request.oid & sheep.INODE:
                return sent
            held[request.peer] = sent
            threading.Timer(0.05, flush, (request.peer, sent)).start()
            return b""

    cluster.nodes[0].fault = fault
    code, said, _, _ = run(
        "convert", "-W", "-m", "16", "-O", "raw", described(cluster, timeout=20), "out.raw"
    )
    assert code == 0 and swapped, said
    assert (folder / "out.raw").read_bytes() == CONTENT


def test_vdis_without_end(cluster, folder):
    """A bitmap that is full: the list of snapshots is refused, and not asked for one by one."""
    cluster.nodes[0].fault = each(READ_VDIS, lambda r, n: answered(r, data=b"\xff" * (1 << 21)))
    code, said, seconds, mib = run("snapshot", "-l", described(cluster))
    assert code == 1 and "more than 1048576 VDIs" in said and seconds < 20 and mib < 200


def test_a_disk_that_shrinks(cluster, folder):
    """The VDI is a smaller one when it is looked at again."""
    small = in_inode(sheep.AT_SIZE, "<Q", MIB)
    state = {"on": False}

    def fault(request, normal):
        if request.op == WRITE and not request.oid & sheep.INODE:
            state["on"] = True
            return answered(request, result=sheep.READONLY)
        return small(request, normal) if state["on"] else normal()

    cluster.nodes[0].fault = fault
    (folder / "new.raw").write_bytes(CONTENT[::-1])
    code, said, _, _ = run("convert", "-n", "-O", "raw", "new.raw", described(cluster))
    assert code == 1 and "The VDI 'disk' has shrunk" in said, said


def test_a_trickle(cluster, folder):
    """A byte now and then is no answer."""
    stop = threading.Event()

    def fault(request, normal):
        sent = normal()
        for at in range(len(sent)):
            if stop.wait(0.2):
                return None
            request.peer.sendall(sent[at : at + 1])
        return b""

    cluster.nodes[0].fault = data_reads(fault)
    code, said, seconds, _ = run("convert", "-O", "raw", described(cluster), "out.raw")
    stop.set()
    assert code == 1 and "has not answered for 2 seconds" in said and seconds < 20


# --- daemons that die ---


def convert_slowly(cluster, *words, nodes=1, timeout=20):
    """A copy that takes a moment, from or to the VDI."""
    return subprocess.Popen(
        [
            CAIRN,
            "convert",
            "-q",
            "-f",
            "raw",
            "-O",
            "raw",
            "-r",
            "8M",
            *(described(cluster, nodes=nodes, timeout=timeout) if w == "VDI" else w for w in words),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )


class Death:
    """A fault that comes with the third request for data of some kind: from then on THEN answers."""

    def __init__(self, op, then):
        self.op, self.then, self.left, self.came = op, then, 2, threading.Event()

    def __call__(self, request, normal):
        if request.op == self.op and not request.oid & sheep.INODE:
            self.left -= 1
        if self.left >= 0:
            return normal()
        self.came.set()
        return self.then(request, normal)


@pytest.mark.parametrize("direction", ["read", "write"])
def test_the_daemon_comes_back(cluster, folder, direction):
    """What was not answered is sent again, and every byte is right."""
    sparse_disk("disk.raw", SIZE, seed=8, pieces=100)
    node = cluster.nodes[0]
    node.fault = Death(READ if direction == "read" else WRITE, lambda r, n: None)
    if direction == "read":
        job = convert_slowly(cluster, "VDI", "out.raw")
    else:
        job = convert_slowly(cluster, "-n", "disk.raw", "VDI")
    assert node.fault.came.wait(30)
    for _ in range(2):
        node.stop()
        node.fault = None
        time.sleep(0.2)
        node.start()
        time.sleep(0.2)
    _, said = job.communicate(timeout=60)
    assert job.returncode == 0, said
    vdi = cluster.store.find("disk")
    stored = b"".join(bytes(cluster.store.objects[vdi << 32 | i]) for i in range(3))
    if direction == "read":
        assert (folder / "out.raw").read_bytes() == CONTENT
    else:
        assert stored == (folder / "disk.raw").read_bytes()


@pytest.mark.parametrize("how", ["dies", "silent"])
def test_another_daemon_takes_over(cluster, folder, how):
    node = cluster.nodes[0]
    node.fault = Death(READ, lambda r, n: b"" if how == "silent" else None)
    job = convert_slowly(cluster, "VDI", "out.raw", nodes=2, timeout=4)
    assert node.fault.came.wait(30)
    if how == "dies":
        node.stop()
    _, said = job.communicate(timeout=60)
    assert job.returncode == 0, said
    assert (folder / "out.raw").read_bytes() == CONTENT


def test_a_first_daemon_that_is_dead(cluster, folder):
    cluster.nodes[0].stop()
    code, said, _, _ = run("info", described(cluster, nodes=2))
    assert code == 0 and "virtual size: 12 MiB" in said


def test_no_daemon_comes_back(cluster, folder):
    cluster.nodes[0].fault = Death(READ, lambda r, n: None)
    job = convert_slowly(cluster, "VDI", "out.raw", nodes=2, timeout=2)
    assert cluster.nodes[0].fault.came.wait(30)
    for node in cluster.nodes:
        node.fault = lambda r, n: None
        node.stop()
    begun = time.monotonic()
    _, said = job.communicate(timeout=60)
    assert job.returncode == 1 and "there is no connection to the Sheepdog cluster" in said
    assert time.monotonic() - begun < 20


def test_creations_are_not_repeated(folder):
    """The object is created, but its answer is lost; a second creation has the same content."""
    with Cluster(folder) as cluster:
        make(cluster, "disk", b"")
        cluster.store.inode(cluster.store.find("disk"))[
            sheep.AT_SIZE : sheep.AT_SIZE + 8
        ] = struct.pack("<Q", 8 * MIB)
        lost = []

        def fault(request, normal):
            sent = normal()
            if request.op == CREATE and not lost:
                lost.append(request)
                return None
            return sent

        cluster.nodes[0].fault = fault
        url = described(cluster, timeout=20)
        code, said, _, _ = run(
            "io",
            *(w for i in range(8) for w in ("-c", f"aio_write -P {i + 1} {i * 256}k 256k")),
            "-c",
            "aio_flush",
            url,
        )
        assert code == 0 and lost, said
        code, said, _, _ = run(
            "io",
            "-r",
            *(w for i in range(8) for w in ("-c", f"read -P {i + 1} {i * 256}k 256k")),
            url,
        )
        assert code == 0 and "verification failed" not in said, said


def test_a_creation_whose_answer_is_lost(cluster, folder):
    """A VDI is not created twice: nobody can know whether it was."""

    def fault(request, normal):
        sent = normal()
        return None if request.op == NEW else sent

    cluster.nodes[0].fault = fault
    code, said, _, _ = run("create", "-f", "raw", cluster.url("new"), "1M")
    assert code == 1 and "was lost before the answer came" in said and "look before" in said
    code, said, _, _ = run("snapshot", "-c", "snap", described(cluster))
    assert code == 1 and "was lost before the answer came" in said
    assert len([one for one in cluster.store.log if one.op == NEW]) == 2


def test_a_snapshot_that_is_refused(cluster, folder):
    """Its tag does not stay with the working VDI."""
    cluster.nodes[0].fault = each(NEW, lambda r, n: answered(r, result=0x13))
    code, said, _, _ = run("snapshot", "-c", "snap", described(cluster))
    assert code == 1 and "the maximum number of VDIs is reached" in said
    assert cluster.store.tag(cluster.store.find("disk")) == ""


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM], ids=["int", "term"])
@pytest.mark.parametrize("where", ["accepts", "answers"])
def test_interrupted(cluster, folder, which, where):
    """While nobody answers, at once or after opening."""
    asked = threading.Event()

    def fault(request, normal):
        if where == "answers" and request.op != READ:
            return normal()
        asked.set()
        return b""

    cluster.nodes[0].fault = fault
    job = subprocess.Popen(
        [CAIRN, "convert", "-O", "raw", cluster.url("disk"), "out.raw"], stderr=subprocess.PIPE
    )
    assert asked.wait(30)
    begun = time.monotonic()
    job.send_signal(which)
    job.communicate(timeout=20)
    assert job.returncode == 128 + which and time.monotonic() - begun < 1.5


def test_an_interrupted_copy_gives_up_its_lock(folder):
    with Cluster(folder, locks=True) as cluster:
        make(cluster, "disk", CONTENT)
        sparse_disk("disk.raw", SIZE, seed=8, pieces=100)
        cluster.nodes[0].fault = reached = Death(WRITE, lambda r, n: n())
        job = convert_slowly(cluster, "-n", "disk.raw", "VDI")
        assert reached.came.wait(30) and cluster.store.locks
        job.send_signal(signal.SIGINT)
        job.communicate(timeout=20)
        assert job.returncode == 130 and cluster.store.locks == {}


def test_nobody_accepts(folder):
    """A port whose queue is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for each_one in waiting:
            each_one.setblocking(False)
            each_one.connect_ex(("127.0.0.1", port))
        name = {"driver": "sheepdog", "vdi": "d", "timeout": 1}
        name["server"] = {"host": "127.0.0.1", "port": str(port)}
        code, said, seconds, _ = run("info", "json:" + json.dumps(name))
        for each_one in waiting:
            each_one.close()
    assert code == 1 and seconds < 15 and str(port) in said or "has not answered" in said
