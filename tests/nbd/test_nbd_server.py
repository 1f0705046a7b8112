"""The NBD server with the clients that people use."""
import contextlib
import os
import signal
import socket
import subprocess
import threading
import time

import pytest

from conftest import CAIRN, call, sparse_disk
from nbd_support import QEMU_NBD, Server, free_port, nbdsh


@pytest.fixture
def server(folder):
    running = []

    def start(*words, program=QEMU_NBD, **more):
        path = folder / f"nbd{len(running)}.sock"
        words = [program, *(["serve"] if program == CAIRN else []), "-k", path, *words]
        running.append(Server(words, path, **more))
        return running[-1]

    yield start
    for one in running:
        one.end()


def nbdinfo(*words):
    return call("nbdinfo", *words)


def test_nbdinfo_sees_what_qemu_nbd_says(server, disk, ours):
    ours("create", "-f", "qcow2", "top.qcow2", "8M")
    one = server("-t", "-e", "0", "-x", "exp", "-D", "some text", "-A", "-f", "qcow2", "top.qcow2")
    told = nbdinfo("--json", one.uri("exp")).json()["exports"][0]
    assert told["export-size"] == 8 << 20 and told["description"] == "some text"
    assert told["contexts"] == ["base:allocation", "qemu:allocation-depth"]
    assert (
        told["can_multi_conn"]
        and told["can_fua"]
        and told["can_fast_zero"]
        and not told["is_read_only"]
    )
    assert (
        told["block_size_minimum"],
        told["block_size_preferred"],
        told["block_size_maximum"],
    ) == (1, 4096, 32 << 20)
    both = [call(program, "-L", "-k", one.path).out for program in ("qemu-nbd", QEMU_NBD)]
    assert both[0] == both[1] and "flags: 0x1ded" in both[0]


def test_list_reads_qemus_server_as_qemu_does(folder, disk):
    for more in (["-e", "3", "-x", "ä b", "-D", "text"], ["-r"], ["-A"]):
        path = folder / "q.sock"
        one = Server(["qemu-nbd", "-t", "-k", path, "-f", "raw", *more, disk], path)
        try:
            assert call("qemu-nbd", "-L", "-k", path).out == call(QEMU_NBD, "-L", "-k", path).out
        finally:
            one.end()


def test_content_arrives_whole_both_ways(server, disk, ours):
    ours("convert", "-O", "qcow2", disk, "disk.qcow2")
    one = server("-t", "-e", "0", "-f", "qcow2", "disk.qcow2")
    call("nbdcopy", one.uri(), "back.raw")
    call("qemu-img", "compare", "-f", "raw", "-F", "raw", disk, "back.raw")
    call("qemu-img", "compare", "-f", "raw", "-F", "raw", disk, one.uri())
    other = sparse_disk("other.raw", os.path.getsize(disk), seed=9)
    call("nbdcopy", other, one.uri())
    assert one.stop() == 0
    ours("compare", "-f", "qcow2", "-F", "raw", "disk.qcow2", other)
    ours("check", "disk.qcow2")
    assert not os.path.exists(one.path)


def test_qemu_clients_work(server, ours):
    ours("create", "-f", "qcow2", "a.qcow2", "64M")
    one = server("-t", "-e", "0", "--discard=unmap", "-f", "qcow2", "a.qcow2")
    call(
        "qemu-io",
        "-f",
        "raw",
        "-c",
        "write -P 7 1M 3M",
        "-c",
        "write -z -u 2M 512k",
        "-c",
        "discard 3M 64k",
        "-c",
        "read -P 7 1M 1M",
        "-c",
        "read -P 0 2M 512k",
        "-c",
        "flush",
        one.uri(),
    )
    found = call("qemu-img", "map", "--output=json", "-f", "raw", one.uri()).json()
    assert [(e["start"], e["length"], e["data"], e["zero"]) for e in found][:2] == [
        (0, 1 << 20, False, True),
        (1 << 20, 1 << 20, True, False),
    ]
    assert one.stop() == 0
    ours("check", "a.qcow2")


def test_block_status_of_all_contexts(server, ours):
    ours("create", "-f", "qcow2", "base.qcow2", "4M")
    call("qemu-io", "-c", "write -P 1 0 1M", "base.qcow2")
    ours("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2")
    call("qemu-io", "-c", "write -P 2 1M 1M", "-c", "write -z 2M 1M", "top.qcow2")
    results = []
    for program in (QEMU_NBD, "qemu-nbd"):
        one = server("-t", "-r", "-A", "-e", "2", "-f", "qcow2", "top.qcow2", program=program)
        results.append(
            [
                nbdinfo("--map=" + name, "--json", one.uri()).json()
                for name in ("base:allocation", "qemu:allocation-depth")
            ]
        )
        one.stop()
    assert results[0] == results[1]


def test_dirty_bitmaps_are_shown_as_qemu_does(server, ours):
    ours("create", "-f", "qcow2", "a.qcow2", "8M")
    ours("bitmap", "--add", "a.qcow2", "b0")
    ours("bitmap", "--add", "a.qcow2", "b1")
    call("qemu-io", "-c", "write 1M 64k", "-c", "write 3M 1M", "a.qcow2")
    ours("bitmap", "--clear", "--disable", "a.qcow2", "b1")
    results = []
    for program in (QEMU_NBD, "qemu-nbd"):
        bitmaps = ("-B", "b0", "-B", "b1", "-B", "b0")
        one = server("-t", "-e", "2", *bitmaps, "-f", "qcow2", "a.qcow2", program=program)
        results.append(
            [
                nbdinfo("--map=qemu:dirty-bitmap:" + name, "--json", one.uri()).json()
                for name in ("b0", "b1")
            ]
            + [call("qemu-nbd", "-L", "-k", one.path).out]
        )
        one.stop()
    assert results[0] == results[1]
    assert any(extent["type"] == 1 for extent in results[0][0])


def test_libnbd_uses_every_command(server, ours):
    ours("create", "-f", "qcow2", "a.qcow2", "1G")
    one = server("-t", "-e", "0", "-f", "qcow2", "a.qcow2")
    nbdsh(
        one.uri(),
        "h.pwrite(b'x' * 70000, 12345, nbd.CMD_FLAG_FUA)",
        "assert h.pread(70000, 12345) == b'x' * 70000",
        "assert h.pread(10, 12340) == b'\\0' * 5 + b'x' * 5",
        "h.zero(65536, 0, nbd.CMD_FLAG_NO_HOLE)",
        "h.zero(512 << 20, 256 << 20, nbd.CMD_FLAG_FAST_ZERO)",
        "h.trim(1 << 20, 0, nbd.CMD_FLAG_FUA)",
        "h.cache(1 << 20, 0)",
        "h.flush()",
        "chunks = []",
        "h.pread_structured(262144, 0, lambda data, offset, kind, error: chunks.append((offset, len(data), kind)))",
        "assert sum(c[1] for c in chunks) == 262144",
        "assert any(c[2] == nbd.READ_HOLE for c in chunks)",
    )


@pytest.mark.slow
def test_fio_verifies_its_data(server, ours):
    ours("create", "-f", "qcow2", "a.qcow2", "32M")
    one = server("-t", "-e", "0", "-f", "qcow2", "a.qcow2")
    with open("job.fio", "w") as job:
        job.write(
            f"[x]\nioengine=nbd\nuri={one.uri()}\nrw=randrw\nbs=4k-64k\niodepth=16\nsize=32M\nio_size=24M\n"
            "verify=crc32c\nverify_fatal=1\n"
        )
    call("fio", "job.fio")
    assert one.stop() == 0
    ours("check", "a.qcow2")


def test_connections_share_one_image_on_several_workers(server, ours):
    ours("create", "-f", "qcow2", "a.qcow2", "64M")
    one = server("a.qcow2", program=CAIRN)
    writer = "for i in range(N, 512, 4): h.pwrite(bytes([N + 1]) * 65536, i * 131072)"
    jobs = [
        subprocess.Popen(
            ["/usr/bin/python3", "-m", "nbd", "-u", one.uri(), "-c", writer.replace("N", str(n))]
        )
        for n in range(4)
    ]
    assert [job.wait(60) for job in jobs] == [0] * 4
    nbdsh(
        one.uri(),
        "for i in range(512): assert h.pread(131072, i * 131072) == "
        "bytes([i % 4 + 1]) * 65536 + bytes(65536), i",
    )
    assert one.stop() == 0
    ours("check", "a.qcow2")


def test_several_exports_in_one_server(folder, server, ours, disk):
    ours("create", "-f", "qcow2", "a.qcow2", "8M")
    one = server("a.qcow2", disk, program=CAIRN)
    sizes = {
        e["export-name"]: e["export-size"]
        for e in nbdinfo("--list", "--json", one.uri()).json()["exports"]
    }
    assert sizes == {"a.qcow2": 8 << 20, "disk.raw": os.path.getsize(disk)}
    assert nbdinfo("--size", one.uri()).out == f"{8 << 20}\n"
    printed = one.job.stdout.readline() + one.job.stdout.readline()
    for line in printed.splitlines():
        assert nbdinfo("--size", line.split()[0]).code == 0
    call("qemu-img", "compare", "-f", "raw", "-F", "raw", disk, one.uri("disk.raw"))


def test_serve_prints_an_uri_that_works(folder):
    with open("odd.raw", "wb") as out:
        out.write(b"abc" * 333334)
    job = subprocess.Popen(
        [CAIRN, "serve", "-p", "0", "-f", "raw", "odd.raw"], stdout=subprocess.PIPE, text=True
    )
    try:
        uri = job.stdout.readline().strip()
        assert uri.startswith("nbd://127.0.0.1:")
        assert nbdinfo("--size", uri).out == "1000002\n"
        call("nbdcopy", uri, "back.raw")
        assert open("back.raw", "rb").read() == open("odd.raw", "rb").read()
    finally:
        job.terminate()
        assert job.wait(10) == 0
        job.stdout.close()


def test_snapshot_option_leaves_the_image_alone(server, disk):
    before = open(disk, "rb").read()
    one = server("-t", "-s", "-f", "raw", disk)
    nbdsh(one.uri(), "h.pwrite(b'z' * 100000, 5)", "assert h.pread(100000, 5) == b'z' * 100000")
    assert one.stop() == 0
    assert open(disk, "rb").read() == before
    one = server("-t", "-s", "-r", "-f", "raw", disk)
    assert nbdinfo("--is", "read-only", one.uri()).code == 0


def test_load_snapshot_shows_the_past(server, ours):
    ours("create", "-f", "qcow2", "a.qcow2", "1M")
    call("qemu-io", "-c", "write -P 1 0 64k", "a.qcow2")
    ours("snapshot", "-c", "old", "a.qcow2")
    call("qemu-io", "-c", "write -P 2 0 64k", "a.qcow2")
    one = server("-t", "-l", "old", "-f", "qcow2", "a.qcow2")
    nbdsh(one.uri(), "assert h.pread(512, 0) == b'\\1' * 512", "assert h.is_read_only()")
    failed = call(QEMU_NBD, "-l", "none", "-k", f"{one.path}x", "-f", "qcow2", "a.qcow2", ok=False)
    assert failed.code == 1 and "Failed to load snapshot: Can't find snapshot" in failed.err


def test_offset_shows_a_part(server, disk):
    one = server("-t", "-r", "-o", "1024", "-f", "raw", disk)
    assert nbdinfo("--size", one.uri()).out == f"{os.path.getsize(disk) - 1024}\n"
    call("nbdcopy", one.uri(), "back.raw")
    assert open("back.raw", "rb").read() == open(disk, "rb").read()[1024:]


def test_ends_with_the_last_client_unless_persistent(server, disk):
    one = server("-f", "raw", disk)
    # Who only looked does not count.
    one.client().close()
    call("qemu-nbd", "-L", "-k", one.path)
    assert one.alive()
    assert nbdinfo("--size", one.uri()).code == 0
    assert one.job.wait(10) == 0 and not os.path.exists(one.path)


def test_further_clients_wait_for_a_slot(server, disk):
    one = server("-t", "-e", "1", "-f", "raw", disk)
    first = one.client().start()
    second = one.connect(timeout=0.5)
    with pytest.raises(TimeoutError):
        second.recv(1)
    first.close()
    second.settimeout(10)
    assert second.recv(8) == b"NBDMAGIC"
    second.close()


def test_fork_returns_when_clients_can_connect(folder, disk):
    call(QEMU_NBD, "--fork", "--pid-file", "pid", "-k", folder / "f.sock", "-f", "raw", disk.name)
    pid = int((folder / "pid").read_text())
    assert nbdinfo("--size", f"nbd+unix:///?socket={folder}/f.sock").code == 0
    until = time.monotonic() + 10
    while (folder / "f.sock").exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert not (folder / "f.sock").exists() and (folder / "pid").read_text() == f"{pid}\n"
    failed = call(QEMU_NBD, "--fork", "-k", folder / "f.sock", "-f", "raw", "missing.raw", ok=False)
    assert failed.code == 1 and "Failed to blk_new_open 'missing.raw'" in failed.err


@pytest.mark.parametrize(
    "greeting",
    [
        b"",
        b"SSH-2.0-x",
        b"SSH-2.0-OpenSSH_9",
        b"NBDMAGIC",
        b"NBDMAGICxxxxxxxx",
        b"NBDMAGICIHAVEOPT",
        b"NBDMAGICIHAVEOPT\0\3",
    ],
)
def test_what_is_no_server_is_told_as_qemu_does(folder, greeting):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("no.sock")
    listener.listen()

    def answer():
        for _ in range(4):
            one = listener.accept()[0]
            one.sendall(greeting)
            one.shutdown(socket.SHUT_WR)
            # Not closed before the client has gone: it would be told of a broken pipe, or not.
            with contextlib.suppress(OSError):
                while one.recv(1000):
                    pass
            one.close()

    thread = threading.Thread(target=answer)
    thread.start()
    uri = f"nbd+unix:///?socket={folder}/no.sock"
    listed = [
        subprocess.run([program, "-L", "-k", folder / "no.sock"], capture_output=True, text=True)
        for program in ("qemu-nbd", QEMU_NBD)
    ]
    shown = [
        subprocess.run([program, "info", uri], capture_output=True, text=True)
        for program in ("qemu-img", QEMU_NBD.with_name("qemu-img"))
    ]
    thread.join()
    listener.close()
    if greeting != b"SSH-2.0-x":
        assert listed[0].stderr == listed[1].stderr and shown[0].stderr == shown[1].stderr
    assert all(one.returncode == 1 for one in (*listed, *shown))


def test_who_leaves_politely_is_no_complaint(folder, disk):
    job = subprocess.Popen(
        [CAIRN, "serve", "-f", "raw", "-k", folder / "p.sock", disk],
        stderr=subprocess.PIPE,
        text=True,
        stdout=subprocess.DEVNULL,
    )
    until = time.monotonic() + 10
    while not (folder / "p.sock").exists() and time.monotonic() < until:
        time.sleep(0.01)
    for _ in range(20):
        subprocess.run(
            ["nbdinfo", "--list", f"nbd+unix:///?socket={folder}/p.sock"],
            check=True,
            capture_output=True,
        )
    job.send_signal(signal.SIGTERM)
    assert job.communicate(timeout=10)[1] == "" and job.returncode == 0


def test_quiet_serving_says_nothing(folder, disk):
    job = subprocess.Popen(
        [CAIRN, "serve", "-q", "-f", "raw", "-k", folder / "p.sock", disk],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    until = time.monotonic() + 10
    while not (folder / "p.sock").exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert nbdinfo("--size", f"nbd+unix:///?socket={folder}/p.sock").out.strip() == str(
        disk.stat().st_size
    )
    job.send_signal(signal.SIGTERM)
    assert job.communicate(timeout=10)[0] == "" and job.returncode == 0


def test_two_servers_do_not_share_a_pid_file(folder, disk):
    words = ["--fork", "-r", "-t", f"--pid-file={folder}/pid", "-f", "raw", disk]
    assert subprocess.run([QEMU_NBD, "-k", folder / "a.sock", *words]).returncode == 0
    first = int((folder / "pid").read_text())
    try:
        answers = [
            subprocess.run(
                [program, "-k", folder / "b.sock", *words], capture_output=True, text=True
            )
            for program in ("qemu-nbd", QEMU_NBD)
        ]
        assert [(one.returncode, one.stderr) for one in answers] == 2 * [(1, answers[0].stderr)]
        assert "Cannot lock pid file" in answers[0].stderr
        assert int((folder / "pid").read_text()) == first
    finally:
        os.kill(first, signal.SIGTERM)


def test_socket_activation(folder, disk):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("act.sock")
    listener.listen()
    script = 'exec 3<&"$1"; shift; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"'
    job = subprocess.Popen(
        [
            "bash",
            "-c",
            script,
            "bash",
            str(listener.fileno()),
            str(QEMU_NBD),
            "-f",
            "raw",
            str(disk),
        ],
        pass_fds=[listener.fileno()],
    )
    assert (
        nbdinfo("--size", f"nbd+unix:///?socket={folder}/act.sock").out
        == f"{os.path.getsize(disk)}\n"
    )
    assert job.wait(10) == 0 and os.path.exists("act.sock")
    # The socket itself goes on for the next one.
    probe = socket.socket(socket.AF_UNIX)
    probe.connect("act.sock")
    probe.close()
    done = subprocess.run(
        ["bash", "-c", script, "bash", str(listener.fileno()), str(QEMU_NBD), "-p", "1", str(disk)],
        pass_fds=[listener.fileno()],
        capture_output=True,
        text=True,
    )
    listener.close()
    assert (
        done.returncode == 1
        and "TCP port number can't be set when using socket activation" in done.stderr
    )


def test_sigterm_finishes_what_is_in_flight_and_flushes(server, ours):
    ours("create", "-f", "qcow2", "a.qcow2", "64M")
    one = server("-t", "-e", "0", "-f", "qcow2", "a.qcow2")
    client = one.client().start()
    for i in range(8):
        client.request(1, i << 20, 1 << 20, cookie=i, payload=bytes([i + 1]) * (1 << 20))
    done = {client.reply()[0]}
    one.job.send_signal(signal.SIGTERM)
    try:
        while True:
            cookie, error, _ = client.reply()
            if error == 0:
                done.add(cookie)
    except Exception:
        pass
    assert one.job.wait(15) == 0
    ours("check", "a.qcow2")
    for i in done:
        call("qemu-io", "-r", "-c", f"read -P {i + 1} {i << 20} 1M", "a.qcow2")
    # Nobody holds the image any more.
    call("qemu-io", "-c", "write 0 64k", "a.qcow2")


def test_the_image_is_locked_while_it_is_served(server, ours, disk):
    server("-t", "-f", "raw", disk)
    failed = ours("convert", "-f", "raw", "-O", "qcow2", disk, "x.qcow2", ok=False)
    assert failed.code == 1 and "lock" in failed.err


def test_clients_get_slots_over_tcp(folder, disk):
    port = free_port()
    one = Server([QEMU_NBD, "-t", "-b", "127.0.0.1", "-p", port, "-f", "raw", disk], "", port=port)
    try:
        assert nbdinfo("--size", one.uri()).out == f"{os.path.getsize(disk)}\n"
        failed = call(QEMU_NBD, "-b", "127.0.0.1", "-p", port, "-r", "-f", "raw", disk, ok=False)
        assert failed.err == "qemu-nbd: Failed to find an available port: Address already in use\n"
    finally:
        one.end()


WRONG_LINES = [
    "",
    "-x",
    "-e x d.raw",
    "--bogus d.raw",
    "-o 1k d.raw",
    "-o 99999999 -f raw d.raw",
    "-k rel d.raw",
    "--cache=foo d.raw",
    "--aio=foo d.raw",
    "--discard=foo d.raw",
    "--detect-zeroes=foo d.raw",
    "--detect-zeroes=unmap d.raw",
    "-L d.raw",
    "-L -k /nonexistent",
    "-n --cache=none d.raw",
    "-f qcow2 d.raw",
    "-B b -f raw d.raw",
    "--tls-creds x d.raw",
    "--tls-authz x d.raw",
    "--tls-hostname x d.raw",
    "-l x -f raw d.raw",
    "-c /dev/nosuch -f raw d.raw",
    "-d /dev/nosuch",
    "-d",
    "--handshake-limit=x d.raw",
    "--selinux-label=x d.raw",
    "-k /nonexistent/s.sock --selinux-label=x d.raw",
    "-f bogus d.raw",
    "--image-opts -f raw d.raw",
    "-L --fork",
    "-L -c /dev/nbd0",
    "--pid-file",
    "-e 0 --aio=threads --aio=native d.raw",
    "-p x d.raw",
    "--discard=unmap --discard=unmap d.raw",
    "-L -r -s -t -e 2 --image-opts -k /nonexistent",
    "-L -l x -k /nonexistent",
    "-f raw -o -5 d.raw",
    "-f raw -b 192.0.2.1 -p 10888 d.raw",
    "--pid-file=/nonexistent/p -f raw d.raw",
    "-r -f raw nbd:localhost",
    "-r -f raw nbd:localhost:",
    "-r -f raw nbd:",
    "-r -f raw nbd:[::1]",
    "-r -f raw nbd:a:b:c",
    "-r -f raw nbd:h:1:exportname=",
    "-r -f raw nbd+unix:/e?socket=/s",
]


@pytest.mark.parametrize("line", WRONG_LINES)
def test_wrong_command_lines_are_answered_as_qemu_does(folder, line):
    with open("d.raw", "wb") as out:
        out.truncate(1 << 20)
    answers = []
    words = line.split()
    if "-k" not in words and "-L" not in words and "-p" not in words:
        words = (
            ["-k", str(folder / "s.sock"), *words]
            if "-c" not in words and "-d" not in words and "--selinux-label=x" not in words
            else words
        )
    for program in ("qemu-nbd", QEMU_NBD):
        done = subprocess.run([program, *words], capture_output=True, text=True, timeout=10)
        answers.append((done.returncode, done.stdout, done.stderr))
    assert answers[0] == answers[1]


def test_kernel_without_an_nbd_client_is_told_clearly(folder, disk):
    if os.path.exists("/dev/nbd0"):
        return
    for words in (["-c", "/dev/nbd0", "-f", "raw", disk], ["-d", "/dev/nbd0"]):
        failed = call(QEMU_NBD, *words, ok=False)
        assert failed.code == 1 and "open /dev/nbd0: No such file or directory" in failed.err
    failed = call(QEMU_NBD, "-v", "-c", "/dev/null", "-f", "raw", disk, ok=False)
    assert failed.code == 1 and "Failed to set NBD socket" in failed.err
