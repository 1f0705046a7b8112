"""What scripts for QEMU's tools see of formats other than qcow2, of the NBD programs and of qemu-io: cases that tables of command
lines do not reach. What is expected was seen with QEMU 10.0."""
import json
import os
import struct
import subprocess

import pytest

from conftest import CAIRN, call

pytestmark = [pytest.mark.any_engine, pytest.mark.words]
COMPAT = CAIRN.parent / "compat"
MIB = 1 << 20


def tool(name, *words, cwd, timeout=20):
    done = subprocess.run(
        [name, *map(str, words)],
        executable=COMPAT / name,
        cwd=cwd,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=timeout,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture
def disk(tmp_path):
    (tmp_path / "a.raw").write_bytes(b"A" * 65536 + bytes(MIB - 65536))
    return tmp_path


# --- options of every tool ---


@pytest.mark.parametrize(
    "name,words",
    [
        ("qemu-img", ["info", "-f", "raw", "a.raw"]),
        ("qemu-io", ["-f", "raw", "-c", "length", "a.raw"]),
        ("qemu-nbd", ["-L", "-k", "/nowhere/s"]),
    ],
)
def test_trace_definitions_are_checked(disk, name, words):
    plain = tool(name, *words, cwd=disk)
    code, out, err = tool(name, "-T", "no_such_event", *words, cwd=disk)
    assert (code, out) == plain[:2] and err.startswith(
        f"{name}: warning: trace event 'no_such_event' does not exist\n"
    )
    assert tool(name, "-T", "blk*", *words, cwd=disk) == plain
    assert tool(name, "-T", "nonsense=1", *words, cwd=disk) == (
        1,
        "",
        f"{name}: Invalid parameter 'nonsense'\n",
    )
    assert tool(name, "-T", "events=/nope", *words, cwd=disk) == (
        1,
        "",
        f"{name}:/nope: No such file or directory\n",
    )
    (disk / "events").write_text("# a comment\nx_*\nno_such_event\n")
    assert (
        "trace event 'no_such_event' does not exist"
        in tool(name, "-T", "events=events", *words, cwd=disk)[2]
    )
    assert tool(name, "-T", "help", *words, cwd=disk)[0] == 0


# --- qemu-nbd ---


def test_nbd_disconnect_of_what_is_no_nbd_device(disk, cairn):
    assert tool("qemu-nbd", "-d", "/dev/null", cwd=disk) == (0, "/dev/null disconnected\n", "")
    assert tool("qemu-nbd", "-d", "missing", cwd=disk) == (
        1,
        "",
        "qemu-nbd: Cannot open missing: No such file or directory\n",
    )
    assert "not a block device" in cairn("nbd", "-d", "/dev/null", ok=False).err


def test_nbd_connect_opens_the_image_first(disk, cairn):
    connect = ["-f", "raw", "-c"]
    assert tool("qemu-nbd", *connect, "/dev/nope", "a.raw", cwd=disk) == (
        1,
        "",
        "qemu-nbd: Failed to open /dev/nope: No such file or directory\n",
    )
    assert (
        "Failed to blk_new_open 'missing'"
        in tool("qemu-nbd", *connect, "/dev/nope", "missing", cwd=disk)[2]
    )
    assert tool("qemu-nbd", *connect, "", "a.raw", cwd=disk) == (
        1,
        "",
        "qemu-nbd: Failed to open : No such file or directory\n",
    )
    for more in ([], ["-v"]):
        assert tool("qemu-nbd", *more, *connect, "/dev/null", "a.raw", cwd=disk) == (
            1,
            "",
            "qemu-nbd: Failed to set NBD socket\n",
        )
    assert (
        "/dev/null: not a block device"
        in cairn("nbd", *connect, "/dev/null", disk / "a.raw", ok=False).err
    )


def test_nbd_looks_at_the_image_when_it_listens(disk):
    """The error of a socket that cannot be made comes before those of the image's options."""
    bad = ["--image-opts", "-f", "raw", "driver=raw,file.filename=a.raw"]
    bind = "qemu-nbd: Failed to bind socket to /nowhere/s: No such file or directory\n"
    for words in (
        bad,
        ["-f", "raw", "-o", "-1", "a.raw"],
        ["-f", "raw", "--aio=native", "a.raw"],
        ["-f", "", "a.raw"],
    ):
        assert tool("qemu-nbd", *words, "-k", "/nowhere/s", cwd=disk) == (1, "", bind)
    here = ["-k", disk / "s"]
    assert tool("qemu-nbd", *bad, *here, cwd=disk) == (
        1,
        "",
        "qemu-nbd: --image-opts and -f are mutually exclusive\n",
    )
    out_of_range = "qemu-nbd: Value '{}' is out of range for parameter 'offset'\n"
    for given, shown in (
        ("-1", "-1"),
        ("9223372036854775808", "-9223372036854775808"),
        ("18446744073709551615", "-1"),
    ):
        assert tool("qemu-nbd", "-f", "raw", "-o", given, *here, "a.raw", cwd=disk) == (
            1,
            "",
            out_of_range.format(shown),
        )
    aio = "qemu-nbd: Failed to blk_new_open 'a.raw': aio=native was specified, but it requires cache.direct=on, which was not specified.\n"
    assert tool("qemu-nbd", "-f", "raw", "--aio=native", *here, "a.raw", cwd=disk) == (1, "", aio)
    assert tool("qemu-nbd", "-f", "", *here, "a.raw", cwd=disk) == (
        1,
        "",
        "qemu-nbd: Failed to blk_new_open 'a.raw': Unknown driver ''\n",
    )


def test_nbd_empty_values_are_values(disk):
    tool("qemu-img", "create", "-q", "-f", "qcow2", "a.qcow2", "1M", cwd=disk)
    code, _, err = tool("qemu-nbd", "-f", "qcow2", "-l", "", "-k", disk / "s", "a.qcow2", cwd=disk)
    assert (code, err) == (1, "qemu-nbd: Failed to load snapshot: Can't find snapshot\n")
    assert (
        "List mode is incompatible with per-device settings"
        in tool("qemu-nbd", "-L", "-x", "", cwd=disk)[2]
    )
    wrong = tool("qemu-nbd", "-l", "snapshot.nope=1", "-k", disk / "s", "a.qcow2", cwd=disk)
    assert wrong == (
        1,
        "",
        "qemu-nbd: Invalid parameter 'snapshot.nope'\nqemu-nbd: Failed in parsing snapshot param `snapshot.nope=1'\n",
    )


def test_nbd_objects_are_made_while_options_are_read(disk):
    assert tool("qemu-nbd", "--object", "secret", cwd=disk) == (
        1,
        "",
        "qemu-nbd: Parameter 'id' is missing\n",
    )
    assert tool("qemu-nbd", "--object", "id=x", cwd=disk) == (
        1,
        "",
        "qemu-nbd: Parameter 'qom-type' is missing\n",
    )
    assert (
        "does not accept value 'nope'"
        in tool("qemu-nbd", "--object", "nope,id=a", "-k", "relative", cwd=disk)[2]
    )
    code, out, _ = tool("qemu-nbd", "--object", "secret,help", cwd=disk)
    assert code == 0 and out.startswith("secret options:\n")


@pytest.mark.parametrize("verb", ["serve", "nbd"])
def test_ports_that_do_not_exist_are_refused(disk, cairn, verb):
    """The resolver takes 70000 for 4464, and QEMU's program listens there."""
    for port in ("65536", "70000", "99999999999999999999", "0065536"):
        done = cairn(verb, "-p", port, "-f", "raw", disk / "a.raw", ok=False)
        assert done.code == 1 and f"'{port}' is no TCP port: those are 0 to 65535" in done.err


# --- formats ---


def test_map_by_direct_io_has_whole_sectors(disk):
    """The sector that the end of the file cuts is in one state where nothing smaller can be read."""
    size = MIB - 1
    os.truncate(disk / "a.raw", size)
    with open(disk / "a.raw", "r+b") as file:
        file.seek(size - 1000)
        file.write(b"B" * 1000)
    os.sync()
    direct = [
        "map",
        "--output=json",
        "--image-opts",
        "driver=raw,file.driver=file,file.filename=a.raw,cache.direct=on",
    ]
    code, out, err = tool("qemu-img", *direct, cwd=disk)
    assert code == 0, err
    pieces = json.loads(out)
    assert pieces[-1]["start"] + pieces[-1]["length"] == MIB and pieces[-1]["data"]
    pieces = json.loads(tool("qemu-img", "map", "--output=json", "-f", "raw", "a.raw", cwd=disk)[1])
    assert (pieces[-1]["start"], pieces[-1]["zero"]) == (size, True)


def test_vhd_creation_is_silent_and_a_copy_warns(disk):
    assert tool("qemu-img", "create", "-q", "-f", "vpc", "a.vhd", "1M", cwd=disk) == (0, "", "")
    code, _, err = tool("qemu-img", "convert", "-f", "raw", "-O", "vpc", "a.raw", "b.vhd", cwd=disk)
    grown = json.loads(tool("qemu-img", "info", "--output=json", "b.vhd", cwd=disk)[1])[
        "virtual-size"
    ]
    assert (
        code == 0
        and f"warning: the VHD disk grows from {MIB} to {grown} bytes" in err
        and "force_size=on" in err
    )
    code, _, err = tool("qemu-img", "dd", "-O", "vpc", "bs=64k", "if=a.raw", "of=c.vhd", cwd=disk)
    assert code == 0 and "the VHD disk grows" in err
    assert tool(
        "qemu-img",
        "convert",
        "-f",
        "raw",
        "-O",
        "vpc",
        "-o",
        "force_size=on",
        "a.raw",
        "d.vhd",
        cwd=disk,
    ) == (0, "", "")


def crc32c(data):
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def with_log(path):
    """A VHDX image whose log has one entry without changes, waiting to be replayed."""
    image = bytearray(path.read_bytes())
    current = max((65536, 131072), key=lambda at: struct.unpack_from("<Q", image, at + 8)[0])
    length, offset = struct.unpack_from("<IQ", image, current + 68)
    guid = b"G" * 16
    image[current + 48 : current + 64] = guid
    struct.pack_into("<I", image, current + 4, 0)
    struct.pack_into("<I", image, current + 4, crc32c(image[current : current + 4096]))
    entry = bytearray(4096)
    struct.pack_into(
        "<4sIIIQII16sQQ", entry, 0, b"loge", 0, 4096, 0, 1, 0, 0, guid, len(image), len(image)
    )
    struct.pack_into("<I", entry, 4, crc32c(entry))
    image[offset : offset + 4096] = entry
    path.write_bytes(image)
    return length


def test_vhdx_log_is_not_passed_over_when_reading_only(disk, cairn):
    tool("qemu-img", "create", "-q", "-f", "vhdx", "a.vhdx", "8M", cwd=disk)
    with_log(disk / "a.vhdx")
    words = "VHDX image file 'a.vhdx' opened read-only, but contains a log that needs to be replayed\nTo replay the log, run:\nqemu-img check -r all 'a.vhdx'\n"
    for verb in ("info", "check", "map"):
        assert tool("qemu-img", verb, "a.vhdx", cwd=disk) == (
            1,
            "",
            "qemu-img: Could not open 'a.vhdx': " + words,
        )
    assert cairn("info", disk / "a.vhdx").code == 0
    code, out, _ = tool("qemu-img", "check", "-r", "all", "a.vhdx", cwd=disk)
    assert code == 0 and "    0 leaked clusters\n    1 corruptions\n" in out
    assert tool("qemu-img", "info", "a.vhdx", cwd=disk)[0] == 0


def test_vhdx_check_looks_for_no_lost_space(disk, cairn):
    tool("qemu-img", "create", "-q", "-f", "vhdx", "-o", "block_size=1M", "a.vhdx", "8M", cwd=disk)
    assert (
        tool("qemu-io", "-f", "vhdx", "-c", "write 0 1M", "-c", "write 5M 1M", "a.vhdx", cwd=disk)[
            0
        ]
        == 0
    )
    image = bytearray((disk / "a.vhdx").read_bytes())
    # The entry of the first block is forgotten; the data of the second stays behind it.
    regions = {
        bytes(image[at : at + 16]): struct.unpack_from("<Q", image, at + 16)[0]
        for at in range(0x30010, 0x30050, 32)
    }
    table = next(at for at in regions.values() if struct.unpack_from("<Q", image, at)[0] & 7 == 6)
    struct.pack_into("<Q", image, table, 0)
    (disk / "a.vhdx").write_bytes(image)
    before = (disk / "a.vhdx").read_bytes()
    for words in (["check"], ["check", "-r", "all"]):
        assert tool("qemu-img", *words, "a.vhdx", cwd=disk) == (
            0,
            "No errors were found on the image.\n",
            "",
        )
    assert (disk / "a.vhdx").read_bytes() == before
    assert call(CAIRN, "check", disk / "a.vhdx", ok=False).code == 3


# --- what is read-only, and what a program opens ---

READ_ONLY = "driver=raw,file.filename=a.raw"


@pytest.mark.parametrize(
    "option", ["read-only=on", "file.read-only=on", "read-only=on,auto-read-only=on"]
)
def test_a_read_only_node_is_not_opened_for_writing(disk, option):
    image = f"{READ_ONLY},{option}"
    before = (disk / "a.raw").read_bytes()
    refused = f"Could not open '{image}': Block node is read-only\n"
    for words in (
        ["resize", "--image-opts", image, "2M"],
        ["bench", "-w", "-c", "1", "--image-opts", image],
    ):
        assert tool("qemu-img", *words, cwd=disk) == (1, "", "qemu-img: " + refused)
    assert tool("qemu-io", "-c", "length", "--image-opts", image, cwd=disk) == (
        1,
        "",
        "qemu-io: can't open: Block node is read-only\n",
    )
    wanted = f"qemu-nbd: Failed to blk_new_open '{image}': Block node is read-only\n"
    assert tool("qemu-nbd", "-k", disk / "s", "--image-opts", image, cwd=disk) == (1, "", wanted)
    assert (disk / "a.raw").read_bytes() == before
    assert tool("qemu-io", "-r", "-c", "length", "--image-opts", image, cwd=disk)[:2] == (
        0,
        "1 MiB\n",
    )
    assert tool("qemu-img", "info", "--image-opts", image, cwd=disk)[0] == 0


def test_a_bitmap_is_not_added_to_a_read_only_node(disk):
    tool("qemu-img", "create", "-q", "-f", "qcow2", "a.qcow2", "1M", cwd=disk)
    image = "driver=qcow2,file.filename=a.qcow2,read-only=on"
    refused = f"qemu-img: Could not open '{image}': Block node is read-only\n"
    for words in (
        ["bitmap", "--add", "--image-opts", image, "b"],
        ["amend", "-o", "compat=0.10", "--image-opts", image],
        ["snapshot", "-c", "x", "--image-opts", image],
        ["check", "-r", "all", "--image-opts", image],
    ):
        assert tool("qemu-img", *words, cwd=disk) == (1, "", refused)


def test_io_reopen_keeps_what_writes(disk):
    def io(*commands, more=()):
        code, out, err = tool(
            "qemu-io", *more, *[word for command in commands for word in ("-c", command)], cwd=disk
        )
        return code, out.count("wrote"), err

    raw = ["-f", "raw", "a.raw"]
    code, written, err = io("reopen -o read-only=on", "write 0 512", more=raw)
    assert (
        (code, written) == (1, 1)
        and "Read-only block node '#block" in err
        and "cannot support read-write users" in err
    )
    assert io(
        "reopen -r", "reopen -o read-only=on", "write 0 512", "reopen -w", "write 0 512", more=raw
    )[1:] == (1, "qemu-io: Block node is read-only\n")
    assert io(
        "reopen -w", "write 0 512", more=["-r", "--image-opts", f"{READ_ONLY},read-only=on"]
    ) == (0, 1, "")
    assert io("reopen -o file.locking=off", more=raw) == (
        1,
        0,
        "qemu-io: Cannot change the option 'locking'\n",
    )


def test_io_open_among_image_options(disk):
    assert tool("qemu-io", "--image-opts", "-c", f"open -o driver=raw {READ_ONLY}", cwd=disk) == (
        1,
        "--image-opts and 'open -o' are mutually exclusive\n",
        "",
    )
    _, _, err = tool("qemu-io", "--image-opts", "-c", "open a.raw", cwd=disk)
    assert err == (
        "qemu-io: warning: short-form boolean option 'a.raw' deprecated\nPlease use a.raw=on instead\n"
        "qemu-io: can't open: Must specify either driver or file\n"
    )
    assert tool("qemu-io", "--image-opts", "-c", f"open {READ_ONLY}", "-c", "length", cwd=disk) == (
        0,
        "1 MiB\n",
        "",
    )


def test_io_wait_break_ends_when_nothing_can_come(disk):
    """QEMU's shell waits for ever."""
    done = tool(
        "qemu-io",
        "-f",
        "raw",
        "-c",
        "break read_aio a",
        "-c",
        "wait_break a",
        "-c",
        "length",
        "blkdebug::a.raw",
        cwd=disk,
    )
    assert done == (
        1,
        "Could not wait for breakpoint: no request is on its way to 'a'\n1 MiB\n",
        "",
    )
    done = tool(
        "qemu-io",
        "-f",
        "raw",
        "-c",
        "break write_aio a",
        "-c",
        "aio_read -q 0 4k",
        "-c",
        "wait_break a",
        "blkdebug::a.raw",
        cwd=disk,
    )
    assert done[0] == 1 and "no request is on its way" in done[1]


@pytest.mark.parametrize(
    "fmt,words",
    [
        ("dmg", "Could not locate UDIF trailer in dmg file"),
        ("vhdx", "Could not open 'a.raw': Invalid argument"),
        ("luks", "Parameter 'key-secret' is required for cipher"),
    ],
)
def test_other_content_in_the_words_of_the_format(disk, cairn, fmt, words):
    assert tool("qemu-io", "-r", "-f", fmt, "-c", "length", "a.raw", cwd=disk) == (
        1,
        "",
        f"qemu-io: can't open device a.raw: {words}\n",
    )
    assert (
        cairn("info", "-f", fmt, disk / "a.raw", ok=False).err
        != f"cairn: Could not open '{disk}/a.raw': {words}\n"
    )


# --- NBD clients ---


@pytest.fixture
def export(disk):
    """Starts qemu-nbd on the socket s; what it started ends with the test."""
    pids = []

    def start(*words):
        assert (
            tool(
                "qemu-nbd",
                "-f",
                "raw",
                "-t",
                "--fork",
                "--pid-file",
                disk / "pid",
                "-k",
                disk / "s",
                *words,
                "a.raw",
                cwd=disk,
            )[0]
            == 0
        )
        pids.append(int((disk / "pid").read_text()))

    yield start
    for pid in pids:
        os.kill(pid, 15)


def test_nbd_read_only_export_in_the_words_of_the_client(disk, export, cairn):
    export("-r")
    name = f"nbd:unix:{disk}/s"
    assert tool("qemu-io", "-f", "raw", "-c", "length", name, cwd=disk) == (
        1,
        "",
        f"qemu-io: can't open device {name}: Could not open image: Permission denied\n",
    )
    assert tool("qemu-io", "-r", "-f", "raw", "-c", "length", name, cwd=disk)[:2] == (0, "1 MiB\n")
    assert "read-only" in cairn("io", "-f", "raw", "-c", "length", name, ok=False).err


def test_nbd_tls_refusals_in_the_words_of_the_client(disk, export, cairn):
    subprocess.run(
        ["psktool", "-u", "alice", "-p", "keys.psk"], cwd=disk, check=True, capture_output=True
    )
    credentials = ["--object", "tls-creds-psk,id=c,dir=.,endpoint=client,username=alice"]
    image = "driver=nbd,path=s,tls-creds=c"
    export()
    denied = "Denied by server for option 5 (starttls)\nserver reported: TLS not configured\n"
    assert tool("qemu-img", "info", *credentials, "--image-opts", image, cwd=disk) == (
        1,
        "",
        f"qemu-img: Could not open '{image}': {denied}",
    )
    assert tool("qemu-nbd", "-L", "-k", disk / "s", *credentials, "--tls-creds=c", cwd=disk) == (
        1,
        "",
        f"qemu-nbd: {denied}",
    )
