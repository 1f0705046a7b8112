"""The disk of a virtual machine, seen by a front end that does everything right."""
import os
import socket
import struct

import pytest

from vhost_front_end import (
    BUFFERS,
    DISCARD,
    EVENT_IDX,
    GET_ID,
    GET_MAX_MEM_SLOTS,
    GET_QUEUE_NUM,
    GUEST,
    IN,
    IOERR,
    LOG_ALL,
    MEMORY,
    OK,
    OUT,
    PROTOCOL,
    SET_BACKEND_REQ_FD,
    SET_CONFIG,
    SET_LOG_BASE,
    SET_MEM_TABLE,
    SET_VRING_ENABLE,
    TABLE,
    UNSUPP,
    USER,
    USUAL,
    VERSION_1,
    WRITE_ZEROES,
    FrontEnd,
)
from vhost_server import PATTERN, SIZE, VhostServer, vhost_server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with vhost_server(tmp_path_factory.mktemp("vhost"), "--queues", "4") as running:
        yield running


@pytest.fixture
def front(server):
    with server.front_end() as connected:
        yield connected


def test_features_are_those_of_the_storage_daemon(front):
    assert front.features == 0x175007E46
    assert front.protocol == 0x9E2B
    assert front.number(GET_QUEUE_NUM) == 4
    assert front.number(GET_MAX_MEM_SLOTS) == 32


def test_configuration_space(front):
    config = front.config()
    assert struct.unpack_from("<QIIHBBIBBHIBBH", config) == (
        SIZE // 512,
        0,
        126,
        0,
        0,
        0,
        512,
        0,
        0,
        1,
        1,
        1,
        0,
        4,
    )
    assert struct.unpack_from("<IIIIIB", config, 36) == (32768, 1, 1, 32768, 1, 0)
    assert front.config(32, 1) == b"\1" and front.config(60, 4) == bytes(4)


def test_reads_and_writes(front):
    queue = front.queue()
    assert queue.read(0, 4096) == (OK, PATTERN[:4096])
    assert queue.read(SIZE // 512 - 1, 512) == (OK, PATTERN[-512:])
    data = os.urandom(512 * 40)
    assert queue.write(100, data) == OK and queue.flush() == OK
    assert queue.read(100, len(data)) == (OK, data)
    # Scattered over memory.
    assert queue.read(100, 4096, parts=[512, 1024, 8, 2552]) == (OK, data[:4096])
    assert queue.write(200, data[:2048], parts=[1000, 1048]) == OK
    assert queue.read(200, 2048) == (OK, data[:2048])


def test_transfers_longer_than_a_buffer(front):
    queue = front.queue()
    data = os.urandom(3 << 20)
    thirds = [1 << 20, (1 << 20) + 4096, (1 << 20) - 4096]
    assert queue.write(512, data, at=4 << 20, parts=thirds) == OK
    assert queue.read(512, len(data), at=4 << 20) == (OK, data)
    assert queue.read(512, len(data), at=4 << 20, parts=[100, len(data) - 100]) == (OK, data)


def test_the_identity(server, front):
    assert front.queue().request(GET_ID, room=20) == (OK, b"vhost_user_blk".ljust(20, b"\0"))
    assert front.queue(1).request(GET_ID, room=5) == (OK, b"vhost")


def test_discards_and_zeroes(front):
    queue = front.queue()
    assert queue.write(64, b"x" * 8192) == OK
    assert queue.range(WRITE_ZEROES, 65, 2) == OK and queue.range(WRITE_ZEROES, 68, 1, 1) == OK
    assert queue.read(64, 8192)[1] == b"x" * 512 + bytes(1024) + b"x" * 512 + bytes(512) + (
        b"x" * 512 * 11
    )
    assert queue.range(DISCARD, 64, 16) == OK
    assert queue.range(DISCARD, 64, 16, 1) == UNSUPP
    assert queue.range(WRITE_ZEROES, 64, 16, 2) == UNSUPP
    assert queue.range(DISCARD, 0, 32769) == IOERR
    assert queue.range(WRITE_ZEROES, SIZE // 512 - 1, 2) == IOERR


def test_what_is_not_possible_is_an_error_of_the_request(front):
    queue = front.queue()
    assert queue.read(SIZE // 512, 512)[0] == IOERR
    assert queue.read(SIZE // 512 - 1, 1024)[0] == IOERR
    assert queue.read(2**64 - 1, 512)[0] == IOERR
    assert queue.read(2**55 - 1, 512)[0] == IOERR
    assert queue.read(0, 100)[0] == IOERR
    assert queue.write(SIZE // 512, b"x" * 512) == IOERR
    assert queue.request(99)[0] == UNSUPP
    assert queue.request(DISCARD, data=b"short")[0] == IOERR
    assert queue.read(0, 512)[0] == OK


def test_queues_side_by_side(front):
    queues = [front.queue(i) for i in range(4)]
    for i, queue in enumerate(queues):
        assert queue.write(1000 + i, bytes([i]) * 512, at=BUFFERS + i * 8192) == OK
    for i, queue in enumerate(queues):
        assert queue.read(1000 + i, 512, at=BUFFERS + i * 8192) == (OK, bytes([i]) * 512)


@pytest.mark.parametrize("features", [USUAL, USUAL & ~EVENT_IDX], ids=["event", "flags"])
def test_many_requests_at_a_time(server, features):
    with server.front_end(features=features) as front:
        queue = front.queue(size=256)
        heads = {}
        for i in range(80):
            at = BUFFERS + i * 1024
            front.write(at, struct.pack("<IIQ", IN, 0, 7000 + i))
            head = queue.chain([(at, 16, False), (at + 16, 512, True), (at + 600, 1, True)])
            heads[head] = (at, i)
        for _ in range(3):
            queue.call_at_next()
            queue.offer(*heads)
            assert sorted(head for head, _ in queue.answers(80)) == sorted(heads)
            assert queue.called()
            for at, i in heads.values():
                assert front.read(at + 16, 512) == PATTERN[:512]
                front.write(at + 16, bytes(512))


def test_a_guest_that_polls_is_not_called(server):
    with server.front_end(features=USUAL & ~EVENT_IDX) as front:
        queue = front.queue()
        assert queue.read(0, 512)[0] == OK and queue.called()
        front.write(queue.available, struct.pack("<H", 1))
        for _ in range(5):
            assert queue.read(0, 512)[0] == OK
        front.write(queue.available, struct.pack("<H", 0))
        assert not queue.called(0)


def test_indirect_requests(front):
    queue = front.queue()
    at, table = BUFFERS, BUFFERS + 4096
    front.write(at, struct.pack("<IIQ", IN, 0, 3))
    front.write(table, struct.pack("<QIHH", GUEST + at, 16, 1, 2))
    front.write(table + 32, struct.pack("<QIHH", GUEST + at + 16, 512, 3, 1))
    front.write(table + 16, struct.pack("<QIHH", GUEST + at + 600, 1, 2, 0))
    queue.put(0, GUEST + table, 48, TABLE)
    queue.offer(0)
    assert queue.answers(1) == [(0, 513)]
    assert front.read(at + 16, 512) == PATTERN[3 * 512 :][:512] and front.read(at + 600, 1) == b"\0"


def test_a_header_in_pieces_and_a_status_with_the_data(front):
    queue = front.queue()
    front.write(BUFFERS, struct.pack("<IIQ", IN, 0, 1))
    parts = [(BUFFERS, 3, False), (BUFFERS + 3, 13, False), (BUFFERS + 4096, 513, True)]
    queue.offer(queue.chain(parts))
    assert queue.answers(1)[0][1] == 513
    assert front.read(BUFFERS + 4096, 513) == PATTERN[512:1024] + b"\0"


def test_memory_in_pieces(server):
    with FrontEndOf(server) as front:
        half = MEMORY // 2
        front.begin()
        front.order(
            SET_MEM_TABLE,
            front.table(
                front.region(size=half),
                front.region(GUEST + half, half, USER + half, half),
            ),
            [front.file, front.file],
        )
        queue = front.queue()
        # The request crosses from one region into the other.
        assert queue.read(0, 8192, at=half - 4000) == (OK, PATTERN[:8192])


class FrontEndOf:
    def __init__(self, server):
        self.front = FrontEnd(server.socket, setup=False)

    def __enter__(self):
        return self.front

    def __exit__(self, *_):
        self.front.leave()


def test_a_ring_stops_and_goes_on(front):
    queue = front.queue()
    assert queue.read(0, 512)[0] == OK
    base = queue.stop()
    assert base == 1
    queue.setup(base)
    assert queue.read(1, 512) == (OK, PATTERN[512:1024])
    front.order(SET_VRING_ENABLE, struct.pack("<II", 0, 0))
    front.number(GET_QUEUE_NUM)
    queue.offer(0)
    front.order(SET_VRING_ENABLE, struct.pack("<II", 0, 1))
    assert queue.answers(1)


def test_without_protocol_features_rings_need_no_enabling(server):
    with server.front_end(features=(USUAL & ~PROTOCOL) | VERSION_1) as front:
        queue = front.queue()
        assert queue.read(0, 512)[0] == OK


def test_acknowledgements(front):
    assert front.accepted(SET_VRING_ENABLE, struct.pack("<II", 3, 1))
    assert not front.accepted(SET_VRING_ENABLE, struct.pack("<II", 4, 1))
    assert front.queue().read(0, 512)[0] == OK


def test_the_cache_can_be_switched_off(front):
    queue = front.queue()
    assert queue.write(0, PATTERN[:512]) == OK
    front.order(SET_CONFIG, struct.pack("<III", 32, 1, 0) + b"\0")
    assert front.config(32, 1) == b"\0"
    assert queue.write(0, PATTERN[:512]) == OK
    assert not front.accepted(SET_CONFIG, struct.pack("<III", 0, 8, 0) + bytes(8))


def test_written_memory_is_logged(server):
    with server.front_end(features=USUAL | LOG_ALL) as front:
        log = os.memfd_create("log")
        os.ftruncate(log, 1 << 20)
        queue = front.queue(flags=1)
        front.ask(SET_LOG_BASE, struct.pack("<QQ", 1 << 20, 0), [log])
        assert queue.read(0, 512, at=BUFFERS)[0] == OK
        bits = os.pread(log, 1 << 20, 0)
        pages = [
            i * 8 + b for i, byte in enumerate(bits) if byte for b in range(8) if byte >> b & 1
        ]
        first = GUEST // 4096
        assert pages == [first + BUFFERS // 4096, first + queue.used // 4096]
        os.close(log)


def test_read_only(tmp_path):
    with vhost_server(tmp_path, "-r", "--serial", "disk-1", "--block-size", "4096") as server:
        with server.front_end() as front:
            assert front.features == 0x175007E46 | 1 << 5
            assert struct.unpack_from("<I", front.config(), 20)[0] == 4096
            queue = front.queue()
            assert queue.read(0, 4096)[0] == OK and queue.flush() == OK
            assert queue.write(0, b"x" * 512) == IOERR
            assert queue.range(DISCARD, 0, 8) == IOERR and queue.range(WRITE_ZEROES, 0, 8) == IOERR
            assert queue.request(GET_ID, room=20)[1].rstrip(b"\0") == b"disk-1"
    assert server.image.read_bytes() == PATTERN


def test_write_through_has_no_cache(tmp_path):
    with vhost_server(tmp_path, "--cache", "writethrough") as server:
        with server.front_end() as front:
            assert front.config(32, 1) == b"\0"
            assert front.queue().write(0, b"y" * 512) == OK


def test_front_ends_come_and_go_one_at_a_time(server):
    with server.front_end() as first:
        assert first.queue().read(0, 512)[0] == OK
        second = FrontEnd(server.socket, setup=False)
        second.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            second.number(1)
    second.socket.settimeout(30)
    assert second.receive()[0] == 1
    second.leave()
    assert server.serves()


# A ring and a record as a back end leaves them that was killed: three requests were taken, the first one answered.
def test_requests_that_a_dead_back_end_left_are_done_again(tmp_path):
    with vhost_server(tmp_path) as server:
        with server.front_end() as front:
            record = front.keep_inflight()
            queue = front.queue()
            heads = []
            for i in range(4):
                at = BUFFERS + i * 4096
                front.write(at, struct.pack("<IIQ", OUT, 0, i) + bytes([65 + i]) * 512)
                front.write(at + 600, b"\xff")
                heads.append(
                    queue.chain([(at, 16, False), (at + 16, 512, False), (at + 600, 1, True)])
                )
            queue.offer(heads[0])
            assert queue.answers(1)[0][0] == heads[0]
            memory = front.file
            server.kill()
            queue.offer(heads[2], heads[1])
        size = struct.unpack_from("<Q", record[0])[0]
        assert size >= 16 + 64 * 16
        state = bytearray(os.pread(record[1], size, 0))
        assert struct.unpack_from("<HHHH", state, 8) == (1, 64, heads[0], 1)
        # Taken in another order than their numbers have.
        for counter, head in ((7, heads[2]), (8, heads[1])):
            struct.pack_into("<B5xHQ", state, 16 + head * 16, 1, 0, counter)
        os.pwrite(record[1], state, 0)
        again = VhostServer(tmp_path, "-f", "raw")
        try:
            with again.front_end(memory=memory) as front:
                front.give_inflight(record)
                queue = front.queue(base=1)
                queue.seen = 1
                assert [head for head, _ in queue.answers(2)] == [heads[2], heads[1]]
                # What is new comes after these.
                queue.made = 3
                queue.offer(heads[3])
                assert queue.answers(1)[0][0] == heads[3]
            assert again.end() == ""
            expected = b"".join(bytes([65 + i]) * 512 for i in range(4))
            assert again.image.read_bytes()[:2048] == expected
        finally:
            again.kill()
        server.job = again.job


def test_a_size_that_is_no_whole_sector(tmp_path):
    with vhost_server(tmp_path, content=b"z" * 1234567) as server:
        with server.front_end() as front:
            assert struct.unpack_from("<Q", front.config())[0] == 2412
            queue = front.queue()
            tail = 1234567 - 2411 * 512
            status, data = queue.read(2411, 512)
            assert status == OK and data[:tail] == b"z" * tail and data[tail:] == bytes(512 - tail)
            assert queue.write(2411, b"w" * 512) == OK


def test_the_channel_for_changes_is_taken(front):
    ours, theirs = socket.socketpair()
    front.order(SET_BACKEND_REQ_FD, b"", [theirs.fileno()])
    theirs.close()
    assert front.queue().read(0, 512)[0] == OK
    ours.close()


@pytest.mark.parametrize(
    "words, said",
    [
        ("--queues 0", "1 to 65535 queues"),
        ("--queues 70000", "1 to 65535 queues"),
        ("--block-size 1000", "logical block has 512 bytes to 2 MiB"),
        ("-k nbd.sock", "--socket is for NBD, not for --vhost-user"),
        ("--vhost-user other.sock", "once for each image"),
    ],
)
def test_options_that_make_no_sense(cairn, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.raw").write_bytes(bytes(512))
    done = cairn("serve", "--vhost-user", "s.sock", *words.split(), "d.raw", ok=False)
    assert done.code == 1 and said in done.err
    done = cairn("serve", "--serial", "x", "d.raw", ok=False)
    assert done.code == 1 and "--serial needs --vhost-user" in done.err


def test_the_end_cuts_the_front_end(tmp_path):
    with vhost_server(tmp_path) as server:
        with server.front_end() as front:
            queue = front.queue()
            assert queue.read(0, 512)[0] == OK
            assert server.end() == ""
            assert front.is_cut()
        assert not server.socket.exists()
