"""Front ends and guests that break every rule: they harm themselves at worst."""
import contextlib
import os
import random
import struct
import time

import pytest

from vhost_front_end import (
    ADD_MEM_REG,
    BUFFERS,
    GET_CONFIG,
    GET_FEATURES,
    GET_INFLIGHT_FD,
    GUEST,
    IN,
    INDIRECT,
    IOERR,
    MEMORY,
    NEXT,
    OK,
    REM_MEM_REG,
    SET_CONFIG,
    SET_INFLIGHT_FD,
    SET_LOG_BASE,
    SET_MEM_TABLE,
    SET_VRING_ADDR,
    SET_VRING_BASE,
    SET_VRING_KICK,
    SET_VRING_NUM,
    TABLE,
    USER,
    USUAL,
    WRITE,
    FrontEnd,
    Gone,
    wait_for,
)
from vhost_server import PATTERN, resident_kib, vhost_server

pytestmark = pytest.mark.any_engine


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with vhost_server(tmp_path_factory.mktemp("hostile"), "--queues", "2") as server:
        yield server


@pytest.fixture
def server(running):
    """Whatever a test did, the next front end is served."""
    yield running
    assert running.serves()
    assert running.image.read_bytes() == PATTERN
    assert resident_kib(running.job.pid) < 700 << 10


@pytest.fixture
def front(server):
    with server.front_end() as connected:
        yield connected


def u64(number):
    return struct.pack("<Q", number)


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack("<III", 99, 1, 0),
        struct.pack("<III", 0, 1, 0),
        struct.pack("<III", 28, 1, 0),
        struct.pack("<III", GET_FEATURES, 1, 2**32 - 1),
        struct.pack("<III", GET_FEATURES, 1, 1025),
        struct.pack("<III", GET_FEATURES, 2, 0),
        struct.pack("<III", SET_VRING_NUM, 1, 4) + bytes(4),
        struct.pack("<III", SET_VRING_NUM, 1, 8) + struct.pack("<II", 2, 64),
        struct.pack("<III", SET_VRING_NUM, 1, 8) + struct.pack("<II", 2**32 - 1, 64),
        struct.pack("<III", SET_MEM_TABLE, 1, 8) + struct.pack("<II", 2**32 - 1, 0),
        struct.pack("<III", GET_CONFIG, 1, 12) + struct.pack("<III", 2**32 - 1, 256, 0),
        struct.pack("<III", GET_CONFIG, 1, 12) + struct.pack("<III", 0, 2**32 - 1, 0),
        struct.pack("<III", SET_CONFIG, 1, 13) + struct.pack("<III", 33, 1, 0) + b"x",
        struct.pack("<III", GET_INFLIGHT_FD, 1, 24) + struct.pack("<QQHHI", 0, 0, 65535, 65535, 0),
        struct.pack("<III", GET_INFLIGHT_FD, 1, 24) + struct.pack("<QQHHI", 0, 0, 0, 0, 0),
        struct.pack("<III", SET_VRING_KICK, 1, 8) + u64(0),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        bytes(4096),
        b"\xff" * 4096,
    ],
    ids=range(19),
)
def test_wrong_messages_end_the_connection(front, sent):
    front.socket.sendall(sent)
    assert front.is_cut()


@pytest.mark.parametrize("length", [1, 11, 13, 19])
def test_a_message_that_never_ends_and_a_front_end_that_leaves(server, length):
    with server.front_end(setup=False) as front:
        front.socket.sendall(struct.pack("<III", 2, 1, 8)[:length] + bytes(max(0, length - 12)))


def test_too_many_file_descriptors(front):
    front.send(SET_MEM_TABLE, front.table(), [front.file] * 20)
    assert front.is_cut()


@pytest.mark.parametrize(
    "regions, files",
    [
        ([FrontEnd.region()], 0),
        ([FrontEnd.region()], 2),
        ([FrontEnd.region(size=0)], 1),
        ([FrontEnd.region(size=MEMORY + 1)], 1),
        ([FrontEnd.region(offset=4096)], 1),
        ([FrontEnd.region(offset=2**64 - 4096)], 1),
        ([FrontEnd.region(guest=2**64 - 4096)], 1),
        ([FrontEnd.region(user=2**64 - 4096)], 1),
        ([FrontEnd.region(size=2**63)], 1),
        ([FrontEnd.region(), FrontEnd.region(GUEST + 4096, 4096, 0)], 2),
        ([FrontEnd.region(), FrontEnd.region(0, 4096, USER + MEMORY - 4096)], 2),
        ([FrontEnd.region(i << 40, 4096, i << 40) for i in range(9)], 8),
    ],
    ids=range(12),
)
def test_memory_that_is_none(front, regions, files):
    assert not front.accepted(SET_MEM_TABLE, front.table(*regions), [front.file] * files)
    # What there was before is used further.
    assert front.queue().read(0, 512) == (OK, PATTERN[:512])


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/proc/self/mem", "/"])
def test_memory_in_strange_files(front, path):
    file = os.open(path, os.O_RDONLY)
    assert not front.accepted(SET_MEM_TABLE, front.table(), [file])
    os.close(file)


def test_single_regions(front):
    more = front.region(0, 4096, 1 << 20)
    assert front.accepted(ADD_MEM_REG, bytes(8) + more, [front.file])
    assert not front.accepted(ADD_MEM_REG, bytes(8) + more, [front.file])
    assert front.accepted(REM_MEM_REG, bytes(8) + more)
    assert not front.accepted(REM_MEM_REG, bytes(8) + more)
    for i in range(31):
        region = front.region(i << 40, 4096, i << 36)
        if i != 0:
            assert front.accepted(ADD_MEM_REG, bytes(8) + region, [front.file])
    assert front.accepted(
        ADD_MEM_REG, bytes(8) + front.region(1 << 50, 4096, 1 << 50), [front.file]
    )
    assert not front.accepted(
        ADD_MEM_REG, bytes(8) + front.region(1 << 51, 4096, 1 << 51), [front.file]
    )


@pytest.mark.parametrize("what", ["pipe", "file", "socket", "epoll"])
def test_events_that_are_none(front, what):
    with contextlib.ExitStack() as stack:
        if what == "pipe":
            ends = os.pipe()
            stack.callback(os.close, ends[1])
            file = ends[0]
            stack.callback(os.close, file)
        elif what == "file":
            file = os.open("/dev/zero", os.O_RDWR)
            stack.callback(os.close, file)
        elif what == "socket":
            file = front.socket.fileno()
        else:
            file = os.memfd_create("x")
            stack.callback(os.close, file)
        assert not front.accepted(SET_VRING_KICK, u64(0), [file])
    assert front.queue().read(0, 512)[0] == OK


@pytest.mark.parametrize(
    "more",
    [
        {"descriptors": USER - 16},
        {"descriptors": USER + MEMORY - 64 * 16 + 16},
        {"descriptors": 2**64 - 16},
        {"descriptors": USER + 8},
        {"available": USER + MEMORY - 100},
        {"available": USER + 1},
        {"used": 0},
        {"used": USER + MEMORY - 4},
        {"used": USER + 2},
        {"entries": 63},
        {"entries": 65536},
        {"entries": 2**31},
    ],
    ids=range(12),
)
def test_rings_that_are_nowhere(front, more):
    queue = front.queue(**more)
    assert queue.failed()
    # Set up again, the same queue works.
    front.order(SET_VRING_NUM, struct.pack("<II", 0, 64))
    front.order(SET_VRING_ADDR, queue.addresses())
    assert queue.read(0, 512) == (OK, PATTERN[:512])


def broken(front, queue, *heads):
    """The queue stops, the connection lives, another queue works."""
    queue.offer(*heads)
    assert queue.failed()
    assert front.queue(1).read(0, 512) == (OK, PATTERN[:512])


@pytest.mark.parametrize(
    "address, length",
    [
        (0, 512),
        (GUEST - 1, 16),
        (GUEST + MEMORY, 1),
        (GUEST + MEMORY - 16, 17),
        (2**64 - 1, 2),
        (GUEST, 2**32 - 1),
    ],
    ids=range(6),
)
def test_requests_outside_of_the_memory(front, address, length):
    queue = front.queue()
    queue.put(0, address, length, NEXT, 1)
    queue.put(1, GUEST + BUFFERS, 1, WRITE)
    broken(front, queue, 0)


def test_a_request_that_is_a_loop(front):
    queue = front.queue()
    queue.put(0, GUEST + BUFFERS, 16, NEXT, 1)
    queue.put(1, GUEST + BUFFERS, 16, NEXT, 0)
    broken(front, queue, 0)


def test_a_request_that_goes_on_outside_of_the_ring(front):
    queue = front.queue()
    queue.put(0, GUEST + BUFFERS, 16, NEXT, 64)
    broken(front, queue, 0)


@pytest.mark.parametrize(
    "parts",
    [
        [(BUFFERS, 16, True), (BUFFERS, 16, False)],
        [(BUFFERS, 16, False)],
        [(BUFFERS, 15, False), (BUFFERS, 1, True)],
        [(BUFFERS, 512, True)],
        [(BUFFERS, 0, False), (BUFFERS, 0, True)],
    ],
    ids=["order", "no status", "short header", "no header", "empty"],
)
def test_requests_that_are_none(front, parts):
    queue = front.queue()
    broken(front, queue, queue.chain(parts))


def indirect(front, queue, entries, address=GUEST + BUFFERS, length=None, flags=TABLE):
    for i, entry in enumerate(entries):
        front.write(BUFFERS + i * 16, struct.pack("<QIHH", *entry))
    queue.put(0, address, len(entries) * 16 if length is None else length, flags, 1)


@pytest.mark.parametrize(
    "entries, more",
    [
        ([(GUEST, 16, NEXT, 0)], {}),
        ([(GUEST, 16, NEXT, 1), (GUEST, 16, NEXT, 0)], {}),
        ([(GUEST, 16, NEXT, 9)], {}),
        ([(GUEST + BUFFERS, 16, TABLE, 0)], {}),
        ([(GUEST, 16, 0, 0)], {"length": 15}),
        ([(GUEST, 16, 0, 0)], {"length": 0}),
        ([(GUEST, 16, 0, 0)], {"length": 2**32 - 16}),
        ([(GUEST, 16, 0, 0)], {"address": GUEST + MEMORY - 8}),
        ([(GUEST, 16, 0, 0)], {"address": 0}),
        ([(GUEST, 16, 0, 0)], {"flags": TABLE | NEXT}),
    ],
    ids=range(10),
)
def test_indirect_tables_that_make_no_sense(front, entries, more):
    queue = front.queue()
    indirect(front, queue, entries, **more)
    broken(front, queue, 0)


def test_indirect_tables_that_were_not_agreed_on(server):
    with server.front_end(features=USUAL & ~INDIRECT) as front:
        queue = front.queue()
        indirect(front, queue, [(GUEST, 16, 0, 0)])
        broken(front, queue, 0)


def test_heads_outside_of_the_ring(front):
    broken(front, front.queue(), 64)


@pytest.mark.parametrize("index", [65, 1000, 65535])
def test_more_requests_than_entries(front, index):
    queue = front.queue()
    front.write(queue.available + 2, struct.pack("<H", index))
    os.eventfd_write(queue.kick, 1)
    assert queue.failed()


def test_a_base_that_is_not_the_ring_s(front):
    queue = front.queue(base=30000)
    queue.made = 0
    queue.offer(0)
    assert queue.failed()


def test_one_request_that_is_offered_all_the_time(front):
    queue = front.queue()
    front.write(BUFFERS, struct.pack("<IIQ", IN, 0, 0))
    head = queue.chain(
        [(BUFFERS, 16, False), (BUFFERS + 16, 4096, True), (BUFFERS + 8192, 1, True)]
    )
    for _ in range(50):
        queue.offer(*[head] * 64)
        queue.answers(64)
    assert front.read(BUFFERS + 16, 4096) == PATTERN[:4096]


# 60 requests of 1,000 parts of 4 KiB each are 240 MiB, all of them over the same bytes of the guest.
def test_requests_that_are_larger_than_the_memory(front):
    queue = front.queue()
    entries = [(GUEST + BUFFERS, 16, NEXT, 1)]
    entries += [(GUEST + (4 << 20), 4096, NEXT | WRITE, i) for i in range(2, 1002)]
    entries.append((GUEST + (5 << 20), 1, WRITE, 0))
    front.write(BUFFERS, struct.pack("<IIQ", IN, 0, 0))
    table = b"".join(struct.pack("<QIHH", *entry) for entry in entries)
    front.write(2 << 20, table)
    for i in range(60):
        queue.put(i, GUEST + (2 << 20), len(table), TABLE)
    queue.offer(*range(60))
    queue.answers(60)
    assert front.read(5 << 20, 1)[0] in (OK, IOERR)


def test_a_request_with_too_many_parts(front):
    queue = front.queue()
    table = b"".join(
        struct.pack("<QIHH", GUEST + BUFFERS, 1, NEXT | WRITE, i + 1) for i in range(1100)
    )
    front.write(2 << 20, table)
    queue.put(0, GUEST + (2 << 20), len(table), TABLE)
    broken(front, queue, 0)


def test_a_guest_that_changes_everything_all_the_time(front):
    queue = front.queue()
    noise = random.Random(7)
    until = time.monotonic() + 2
    while time.monotonic() < until:
        front.write(BUFFERS, struct.pack("<IIQ", IN, 0, noise.randrange(9000)))
        for i in range(64):
            queue.put(
                i,
                GUEST + noise.choice([BUFFERS, BUFFERS + 512, MEMORY, noise.randrange(MEMORY)]),
                noise.choice([1, 16, 512, 65536, noise.randrange(2**32)]),
                noise.choice([0, 1, 2, 3, 4]),
                noise.randrange(70),
            )
        queue.offer(*(noise.randrange(64) for _ in range(8)))
        if queue.failed(0):
            os.eventfd_read(queue.error)
            front.order(SET_VRING_ADDR, queue.addresses())
            front.order(SET_VRING_BASE, struct.pack("<II", 0, queue.made))


def test_one_that_breaks_its_ring_all_the_time_is_reported_a_few_times(tmp_path):
    with vhost_server(tmp_path) as server:
        with server.front_end() as front:
            queue = front.queue()
            for _ in range(50):
                front.order(SET_VRING_ADDR, queue.addresses(used=0))
                assert queue.failed() and os.eventfd_read(queue.error)
        said = server.end().splitlines()
        assert len(said) == 21 and "queue 0 stopped: ring outside" in said[0]
        assert said[-1].endswith("and more")


@pytest.mark.parametrize("size", [0, 4096, (1 << 20) + 4096])
def test_memory_that_is_cut_short(server, size):
    with server.front_end() as front:
        queue = front.queue()
        assert queue.read(0, 512)[0] == OK
        os.ftruncate(front.file, size)
        os.eventfd_write(queue.kick, 1)
        assert front.number(GET_FEATURES)
        if size < 1 << 20:
            assert queue.failed()


def test_memory_that_is_cut_while_requests_run(server):
    memory = FrontEnd.new_memory()
    with server.front_end(memory=memory) as front:
        queue = front.queue()
        heads = []
        for i in range(20):
            at = BUFFERS + i * 32
            front.write(at, struct.pack("<IIQ", IN, 0, 0))
            heads.append(
                queue.chain(
                    [(at, 16, False), ((4 << 20) + 65536 * i, 65536, True), (at + 16, 1, True)]
                )
            )
        for _ in range(20):
            queue.offer(*heads)
            os.ftruncate(memory, 4 << 20)
            os.ftruncate(memory, MEMORY)
        front.number(GET_FEATURES)


def test_memory_that_is_taken_away_while_a_ring_runs(front):
    queue = front.queue()
    assert queue.read(0, 512)[0] == OK
    assert front.accepted(REM_MEM_REG, bytes(8) + front.region())
    assert queue.failed()


def test_an_event_whose_counter_is_full(front):
    queue = front.queue()

    def full():
        """The back end may have signalled it meanwhile."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(queue.call)
        try:
            os.eventfd_write(queue.call, 2**64 - 2)
        except BlockingIOError:
            return False
        return True

    wait_for(full, "the counter cannot be filled")
    for i in range(10):
        assert queue.read(i, 512)[0] == OK


@pytest.mark.parametrize(
    "payload",
    [
        struct.pack("<QQHHI", 1 << 20, 0, 65535, 65535, 0),
        struct.pack("<QQHHI", 64, 0, 1, 64, 0),
        struct.pack("<QQHHI", 2**64 - 1, 2, 1, 64, 0),
        struct.pack("<QQHHI", 1 << 20, 0, 0, 64, 0),
        struct.pack("<QQHHI", 1 << 40, 0, 1, 64, 0),
    ],
    ids=range(5),
)
def test_records_of_requests_that_are_none(front, payload):
    assert not front.accepted(SET_INFLIGHT_FD, payload, [front.file])


def test_a_record_full_of_nonsense(server):
    with server.front_end() as front:
        record = front.keep_inflight()
        for fill in (b"\xff", b"\x01", os.urandom(1)):
            size = struct.unpack_from("<Q", record[0])[0]
            os.pwrite(record[1], fill * size, 0)
            front.give_inflight(record)
            queue = front.queue()
            wait_for(lambda: queue.failed(0) or queue.used_index(), "nothing happened")
            front.write(queue.base, bytes(4096))


def test_a_log_that_is_too_small_and_one_that_is_none(front):
    assert not front.accepted(SET_LOG_BASE, struct.pack("<QQ", 0, 0), [front.file])
    assert not front.accepted(SET_LOG_BASE, struct.pack("<QQ", 2**64 - 1, 1), [front.file])
    assert not front.accepted(SET_LOG_BASE, struct.pack("<QQ", 1 << 40, 0), [front.file])


def test_questions_without_end_whose_answers_nobody_reads(server):
    with server.front_end() as front:
        front.socket.settimeout(1)
        with contextlib.suppress(TimeoutError, Gone):
            for _ in range(200000):
                front.send(GET_FEATURES)


def test_one_that_does_not_leave_is_cut_off_in_the_end(tmp_path):
    with vhost_server(tmp_path) as server:
        with server.front_end() as front:
            with contextlib.suppress(TimeoutError):
                front.socket.settimeout(1)
                for _ in range(200000):
                    front.send(GET_FEATURES)
            assert server.end() == ""
