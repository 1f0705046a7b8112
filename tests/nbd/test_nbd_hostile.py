"""What clients may send to the NBD server without harm to it or to others, by hand-made bytes."""
import os
import signal
import socket
import struct
import subprocess
import time

import pytest

from conftest import call
from nbd_support import (
    ABORT,
    ACK,
    BLOCK_SIZE_REQD,
    CACHE,
    DF,
    DISC,
    EINVAL,
    ENOSPC,
    ENOTSUP,
    EPERM,
    EXPORT_NAME,
    EXT_HEADERS,
    EXT_REQD,
    EXTENDED_REQUEST,
    FAST_ZERO,
    FLUSH,
    FUA,
    GO,
    GREETING,
    IHAVEOPT,
    INFO,
    INVALID,
    LIST,
    LIST_META,
    META,
    NO_HOLE,
    PAYLOAD,
    POLICY,
    QEMU_NBD,
    READ,
    REQ_ONE,
    REQUEST,
    RESIZE,
    SET_META,
    STARTTLS,
    STATUS,
    STRUCTURED_REPLY,
    TOO_BIG,
    TRIM,
    UNKNOWN,
    UNSUP,
    WRITE,
    ZEROES,
    Client,
    Closed,
    Server,
)

SIZE = 4 << 20


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One server that every test of this page must leave alive and well."""
    folder = tmp_path_factory.mktemp("nbd")
    with open(folder / "d.raw", "wb") as out:
        out.write(os.urandom(1 << 20))
        out.truncate(SIZE)
    one = Server(
        [
            QEMU_NBD,
            "-t",
            "-e",
            "0",
            "-x",
            "exp",
            "-k",
            folder / "s.sock",
            "-A",
            "-f",
            "raw",
            folder / "d.raw",
        ],
        folder / "s.sock",
    )
    one.disk = folder / "d.raw"
    yield one
    assert one.stop() == 0


@pytest.fixture
def server(shared):
    yield shared
    assert shared.alive()
    client = shared.client().start(name="exp")
    assert client.works()
    client.close()
    assert shared.memory_kib() < 200 << 10


def dropped(server, data, flags=3):
    client = server.client(flags=flags)
    client.send(data)
    return client.is_dropped()


# --- the handshake ---


@pytest.mark.parametrize("flags", [4, 0x80000003, 0xFFFFFFFF])
def test_unknown_client_flags_end_the_connection(server, flags):
    assert server.client(flags=flags).is_dropped()


def test_without_the_fixed_handshake_only_export_name_is_answered(server):
    client = server.client(flags=0)
    client.option(LIST)
    assert client.is_dropped()
    client = server.client(flags=0)
    client.option(EXPORT_NAME, b"exp")
    size, flags = struct.unpack(">QH", client.take(10))
    assert size == SIZE and flags == 0x0D6D and client.take(124) == bytes(124)
    assert client.works()


def test_wrong_option_magic_and_endless_options_end_the_connection(server):
    assert dropped(server, struct.pack(">QII", IHAVEOPT + 1, LIST, 0))
    client = server.client()
    with pytest.raises((Closed, ConnectionError)):
        for _ in range(10000):
            assert client.ask(LIST)[-1][0] == ACK


def test_unknown_options_are_skipped(server):
    client = server.client()
    for number in (0, 4, 12, 99, 0xFFFFFFFF):
        assert client.ask(number, b"x" * 1000)[-1][0] == UNSUP
    assert client.ask(ABORT)[-1][0] == ACK
    assert client.is_dropped()


@pytest.mark.parametrize("number", [LIST, STRUCTURED_REPLY, EXT_HEADERS])
def test_data_where_there_must_be_none(server, number):
    client = server.client()
    assert client.ask(number, b"abc")[-1][0] == INVALID
    assert client.ask(LIST)[-1][0] == ACK


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0",
        struct.pack(">I", 5) + b"exp",
        struct.pack(">I", 0xFFFFFFFF) + b"exp\0\0",
        struct.pack(">I", 3) + b"exp",
        struct.pack(">I", 3) + b"exp" + struct.pack(">HH", 2, 3),
        struct.pack(">I", 3) + b"exp" + struct.pack(">HHH", 1, 3, 3),
        struct.pack(">I", 3) + b"e\0p" + struct.pack(">H", 0),
        struct.pack(">I", 4097) + b"x" * 4097 + struct.pack(">H", 0),
        b"y" * 200000,
    ],
)
@pytest.mark.parametrize("number", [INFO, GO])
def test_malformed_requests_for_an_export(server, number, data):
    client = server.client()
    assert client.ask(number, data)[-1][0] == INVALID
    assert client.go("exp")[-1][0] == ACK and client.works()


def test_unknown_exports_are_named_back_shortened(server):
    client = server.client()
    replies = client.go("no\x1b[2Jsuch\n" + "n" * 4000)
    assert replies[-1][0] == UNKNOWN and len(replies[-1][1]) < 200
    assert b"\x1b" not in replies[-1][1] and b"\n" not in replies[-1][1]
    client.option(EXPORT_NAME, b"nosuch")
    assert client.is_dropped()


def test_infos_come_in_order_and_unknown_ones_are_ignored(server):
    client = server.client()
    replies = client.go("exp", infos=(77, 3, 2, 1), option=INFO)
    assert [data[:2] for kind, data in replies[:-1]] == [b"\0\1", b"\0\3", b"\0\0"]
    assert client.go("exp")[-1][0] == ACK


def test_repeated_agreements_are_refused(server):
    client = server.client()
    assert client.ask(STRUCTURED_REPLY)[-1][0] == ACK
    assert client.ask(STRUCTURED_REPLY)[-1][0] == INVALID
    assert client.ask(EXT_HEADERS)[-1][0] == ACK
    assert client.ask(EXT_HEADERS)[-1][0] == INVALID
    assert client.ask(STRUCTURED_REPLY)[-1][0] == EXT_REQD
    client.option(EXPORT_NAME, b"exp")
    assert client.is_dropped()


def test_metadata_contexts(server):
    def names(replies):
        return [data[4:].decode() for kind, data in replies if kind == META]

    both = ["base:allocation", "qemu:allocation-depth"]
    client = server.client()
    assert names(client.contexts(name="exp", option=LIST_META)) == both
    assert client.contexts("base:allocation", name="exp")[-1][0] == INVALID
    assert client.ask(STRUCTURED_REPLY)[-1][0] == ACK
    assert names(client.contexts("base:", option=LIST_META, name="exp")) == both[:1]
    assert (
        names(client.contexts("qemu:", "x:y", "nocolon", option=LIST_META, name="exp")) == both[1:]
    )
    assert names(client.contexts("base:", "qemu:", name="exp")) == []
    assert names(client.contexts(name="exp")) == []
    assert names(client.contexts(*["base:allocation"] * 5, "x" * 5000, name="exp")) == both[:1]
    assert client.contexts("base:allocation", name="nosuch")[-1][0] == UNKNOWN
    assert client.contexts(*["q:q"] * 5000, name="exp")[-1][0] == TOO_BIG
    assert client.ask(SET_META, struct.pack(">I3sII", 3, b"exp", 0xFFFFFFFF, 5))[-1][0] == INVALID
    assert client.ask(SET_META, b"x" * (3 << 20))[-1][0] == TOO_BIG
    # A failed choice leaves none.
    assert client.go("exp")[-1][0] == ACK
    assert client.error_of(STATUS, 0, 512) == EINVAL


def test_tls_is_refused_politely_where_there_is_none(server):
    client = server.client()
    assert client.ask(STARTTLS)[-1][0] == POLICY
    assert client.ask(STARTTLS, b"x")[-1][0] == INVALID
    assert client.go("exp")[-1][0] == ACK


@pytest.mark.parametrize("kept", range(0, 120, 7))
def test_handshake_cut_at_every_place(server, kept):
    whole = (
        struct.pack(">I", 3)
        + struct.pack(">QII", IHAVEOPT, EXT_HEADERS, 0)
        + struct.pack(">QIII3sIIc", IHAVEOPT, SET_META, 27, 3, b"exp", 1, 15, b"b")
        + b"ase:allocation"
        + struct.pack(">QIII3sHH", IHAVEOPT, GO, 11, 3, b"exp", 1, 3)
        + struct.pack(">IHHQQQ", EXTENDED_REQUEST, 32, WRITE, 1, 0, 4096)
    )
    client = server.client(flags=None)
    client.send(whole[:kept])
    client.close()


# --- transmission ---

MODES = ["simple", "structured", "extended"]


@pytest.mark.parametrize("mode", MODES)
def test_wrong_magic_ends_the_connection(server, mode):
    client = server.client().start(mode, name="exp")
    client.request(READ, 0, 512, magic=0x12345678)
    assert client.is_dropped()


def test_headers_of_the_other_width_end_the_connection(server):
    client = server.client().start("extended", name="exp")
    client.send(struct.pack(">IHHQQI", REQUEST, 0, READ, 1, 0, 512) + bytes(4))
    assert client.is_dropped()
    client = server.client().start("structured", name="exp")
    client.send(struct.pack(">IHHQQQ", EXTENDED_REQUEST, 0, READ, 1, 0, 512))
    assert client.is_dropped()


@pytest.mark.parametrize("mode", MODES)
def test_refused_requests_leave_the_connection_working(server, mode):
    client = server.client().start(
        mode, ["base:allocation"] if mode != "simple" else [], name="exp"
    )
    rows = [
        (9, 0, 512, 0, EINVAL),
        (255, 0, 0, 0, EINVAL),
        (RESIZE, 1 << 30, 0, 0, EINVAL),
        (READ, 0, 512, NO_HOLE, EINVAL),
        (READ, 0, 512, 0x8000, EINVAL),
        (FLUSH, 0, 0, FAST_ZERO, EINVAL),
        (TRIM, 0, 512, NO_HOLE, EINVAL),
        (CACHE, 0, 512, DF, EINVAL),
        (STATUS, 0, 512, NO_HOLE, EINVAL),
        (READ, SIZE, 1, 0, EINVAL),
        (READ, SIZE - 1, 2, 0, EINVAL),
        (READ, (1 << 64) - 1, 512, 0, EINVAL),
        (READ, (1 << 64) - 512, 512, 0, EINVAL),
        (TRIM, SIZE, 512, 0, EINVAL),
        (ZEROES, SIZE, 512, 0, ENOSPC),
        (ZEROES, SIZE - 1, 0xFFFFFFFF, 0, ENOSPC),
        (STATUS, SIZE, 512, 0, EINVAL),
        (STATUS, 0, 0, 0, EINVAL),
        (CACHE, SIZE, 1, 0, EINVAL),
        (READ, 0, 0xFFFFFFFF, 0, EINVAL),
        (CACHE, 0, 33 << 20, 0, EINVAL),
        (READ, 0, 0, 0, 0),
        (ZEROES, 0, 0, 0, 0),
        (TRIM, 0, 0, 0, 0),
        (FLUSH, 77, 88, 0, 0),
        (FLUSH, 0, 0, FUA, 0),
    ]
    for command, offset, length, flags, error in rows:
        if mode == "simple" and command == STATUS:
            error = EINVAL
        assert client.error_of(command, offset, length, flags) == error, (
            command,
            offset,
            length,
            flags,
        )
    payload = bytes(512)
    write_flag = PAYLOAD if mode == "extended" else 0
    assert client.error_of(WRITE, SIZE, 512, write_flag, payload) == ENOSPC
    assert client.error_of(WRITE, (1 << 64) - 512, 512, write_flag, payload) == ENOSPC
    assert client.error_of(WRITE, 0, 512, write_flag | NO_HOLE, payload) == EINVAL
    assert client.error_of(WRITE, 0, 0, write_flag) == 0
    if mode == "simple":
        client.request(READ, 0, 512, DF)
        assert client.reply()[1] == EINVAL
    assert client.works()


def test_writes_beyond_the_largest_block(server):
    client = server.client().start(name="exp")
    assert client.error_of(WRITE, 0, (32 << 20) + 1, payload=bytes((32 << 20) + 1)) == EINVAL
    assert client.works()
    client.request(WRITE, 0, 0xF0000000)
    assert client.is_dropped()
    client = server.client().start("extended", name="exp")
    client.request(WRITE, 0, 1 << 62, PAYLOAD)
    assert client.is_dropped()
    client = server.client().start("extended", name="exp")
    client.request(READ, 0, 1 << 40, PAYLOAD)
    assert client.is_dropped()


def test_extended_write_without_the_payload_flag_is_taken(server):
    client = server.client().start("extended", name="exp")
    assert client.error_of(WRITE, 3 << 20, 512, 0, b"q" * 512) == 0
    assert client.read(3 << 20, 512) == b"q" * 512


def test_payload_of_commands_that_have_none_is_dropped(server):
    client = server.client().start("extended", name="exp")
    assert client.error_of(READ, 0, 512, PAYLOAD, bytes(512)) == EINVAL
    assert client.error_of(77, 0, 100, PAYLOAD, bytes(100)) == EINVAL
    assert client.works()


def test_block_status_payloads(server):
    client = server.client().start(
        "extended", ["base:allocation", "qemu:allocation-depth"], name="exp"
    )
    query = struct.pack(">QI", 1 << 20, 1)
    client.request(STATUS, 0, len(query), PAYLOAD, payload=query)
    _, error, chunks = client.reply()
    assert error == 0 and [payload[:4] for _, payload in chunks] == [b"\0\0\0\1"]
    for wrong in (
        b"",
        b"1234567",
        struct.pack(">Q", 512),
        struct.pack(">QI", 512, 9),
        struct.pack(">QII", 512, 0, 0),
        struct.pack(">QIIII", 512, 0, 1, 2, 3),
        struct.pack(">QI", 0, 0),
        struct.pack(">QI", SIZE + 1, 0),
        b"\0" * 100001,
    ):
        assert client.error_of(STATUS, 0, len(wrong), PAYLOAD, wrong) == EINVAL, wrong[:20]
    client.request(STATUS, 0, SIZE, REQ_ONE)
    _, error, chunks = client.reply()
    assert error == 0 and [len(payload) for _, payload in chunks] == [24, 24]


def test_client_that_vanishes_in_a_payload_writes_nothing(server):
    with open(server.disk, "rb") as disk:
        before = disk.read(65536)
    for sent in (0, 1, 511, 65535):
        client = server.client().start(name="exp")
        client.request(WRITE, 0, 65536)
        client.send(b"\xee" * sent)
        client.close()
    time.sleep(0.05)
    with open(server.disk, "rb") as disk:
        assert disk.read(65536) == before


def test_read_only_exports_refuse_every_change(folder):
    with open("d.raw", "wb") as out:
        out.truncate(1 << 20)
    one = Server(
        [QEMU_NBD, "-t", "-r", "-k", folder / "s.sock", "-f", "raw", "d.raw"], folder / "s.sock"
    )
    try:
        client = one.client().start()
        assert client.flags == 0x048F
        assert client.error_of(WRITE, 0, 512, payload=bytes(512)) == EPERM
        assert client.error_of(ZEROES, 0, 512) == EPERM and client.error_of(TRIM, 0, 512) == EPERM
        assert client.works()
    finally:
        one.end()


def test_slow_reader_blocks_nobody_and_takes_bounded_memory(server):
    slow = server.client().start(name="exp")
    slow.sock.settimeout(0.5)
    with pytest.raises(TimeoutError):
        for _ in range(100000):
            slow.request(READ, 0, 1 << 20)
    fast = server.client().start(name="exp")
    begin = time.monotonic()
    for _ in range(50):
        assert fast.error_of(FLUSH) == 0
    assert time.monotonic() - begin < 5
    assert server.memory_kib() < 150 << 10
    slow.close()


def test_many_requests_are_answered_each_once(server):
    client = server.client().start(name="exp")
    for cookie in range(200):
        client.request(READ, cookie * 512 % (1 << 20), 512, DF, cookie=cookie)
    seen = [client.reply() for _ in range(200)]
    assert sorted(cookie for cookie, _, _ in seen) == list(range(200))
    assert all(error == 0 for _, error, _ in seen)


def test_disconnect_is_answered_by_silence(server):
    client = server.client().start(name="exp")
    client.request(READ, 0, 512, cookie=5)
    client.request(DISC)
    assert client.reply()[0] == 5
    assert client.is_dropped()


# --- past faults of other programs, by their names ---


def test_cve_2017_15118_long_export_names(server):
    for length in (4096, 4097, 65536, 32 << 20):
        client = server.client()
        client.option(
            GO,
            struct.pack(">I", length) + b"A" * min(length, 1 << 20) + bytes(2),
            length=4 + min(length, 1 << 20) + 2,
        )
        assert client.option_reply()[1] in (INVALID, UNKNOWN)


def test_cve_2017_15119_huge_option_lengths(server):
    client = server.client()
    client.option(99, length=(32 << 20) + 1)
    assert client.is_dropped()
    client = server.client()
    client.option(0xFFFFFFFF, length=0xFFFFFFFF)
    assert client.is_dropped()


def test_cve_2017_9524_and_7539_clients_that_leave_in_the_handshake(server):
    for step in range(5):
        client = server.client(flags=None)
        if step > 0:
            client.send(struct.pack(">I", 3))
        if step > 1:
            client.send(struct.pack(">QII", IHAVEOPT, GO, 9))
        if step > 2:
            client.send(struct.pack(">I", 3))
        if step > 3:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()


def test_cve_2020_10761_long_names_in_error_texts(server):
    client = server.client()
    for number in (INFO, GO):
        replies = client.go("é" * 2047, option=number)
        assert replies[-1][0] == UNKNOWN and len(replies[-1][1]) <= 4096
    assert client.ask(STRUCTURED_REPLY)[-1][0] == ACK
    assert client.contexts("base:allocation", name="z" * 4096)[-1][0] == UNKNOWN


def test_cve_2024_7409_silent_clients_are_cut_off_and_shutdown_is_quick(folder):
    with open("d.raw", "wb") as out:
        out.truncate(1 << 20)
    one = Server(
        [
            QEMU_NBD,
            "-t",
            "-e",
            "0",
            "--handshake-limit=1",
            "-k",
            folder / "s.sock",
            "-f",
            "raw",
            "d.raw",
        ],
        folder / "s.sock",
    )
    try:
        silent = [one.connect() for _ in range(20)]
        begin = time.monotonic()
        for sock in silent:
            assert sock.recv(18)
            assert sock.recv(1) == b""
        assert 0.5 < time.monotonic() - begin < 5
        more = [one.client() for _ in range(5)]
        begin = time.monotonic()
        assert one.stop() == 0
        assert time.monotonic() - begin < 3
        for client in more:
            client.is_dropped()
    finally:
        one.end()


def test_cve_2019_14850_and_14851_odd_orders_of_options(server):
    client = server.client()
    assert client.go("exp", option=INFO)[-1][0] == ACK
    assert client.ask(LIST)[-1][0] == ACK
    assert client.go("nosuch", option=INFO)[-1][0] == UNKNOWN
    assert client.ask(STRUCTURED_REPLY)[-1][0] == ACK
    assert client.go("exp")[-1][0] == ACK
    assert client.works()


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0xFFFFFFFE, 0x7FFFFFFF, 0x80000000])
def test_cve_2011_0530_and_2022_26495_and_26496_length_arithmetic(server, length):
    client = server.client()
    client.option(EXPORT_NAME, b"exp", length=length)
    assert client.is_dropped()
    client = server.client()
    assert client.ask(GO, struct.pack(">I", length) + b"exp" + bytes(4))[-1][0] == INVALID
    assert client.ask(LIST_META, struct.pack(">I", length) + b"exp" + bytes(8))[-1][0] == INVALID


def test_cve_2011_1925_and_2013_7441_dropped_handshakes_do_no_harm(server):
    first = server.client().start(name="exp")
    for _ in range(30):
        sock = server.connect()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    assert first.works()


def test_cve_2015_0847_signals_while_clients_come_and_go(folder):
    with open("d.raw", "wb") as out:
        out.truncate(1 << 20)
    for _ in range(3):
        one = Server(
            [QEMU_NBD, "-t", "-e", "0", "-k", folder / "s.sock", "-f", "raw", "d.raw"],
            folder / "s.sock",
        )
        try:
            clients = [one.client().start() for _ in range(4)]
            for client in clients:
                for i in range(50):
                    client.request(READ, 0, 65536, cookie=i)
            assert one.stop(signal.SIGTERM) == 0
        finally:
            one.end()
