"""HTTP(S) and FTP: files of real servers, and servers that lie, stall, cut and change."""
# Packages: nginx-light python3-pyftpdlib libcurl3-gnutls
import json
import os
import re
import signal
import subprocess
import time

import pytest

from conftest import CAIRN, call, sparse_disk
from support.web import Nginx, OddServer, free_port

pytestmark = pytest.mark.any_engine
SIZE = 3 * 1024 * 1024 + 512


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture(scope="module")
def nginx(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nginx")
    server = Nginx(folder)
    sparse_disk(folder / "www/disk.raw", SIZE)
    for words in (
        ["create", "-q", "-f", "qcow2", "-b", "disk.raw", "-F", "raw", "top.qcow2"],
        ["convert", "-O", "qcow2", "-c", "disk.raw", "disk.qcow2"],
    ):
        subprocess.run(["qemu-img", *words], cwd=folder / "www", check=True)
    for words in (["xz", "-k"], ["gzip", "-k"]):
        subprocess.run([*words, "disk.raw"], cwd=folder / "www", check=True)
    yield server
    server.stop()


@pytest.fixture
def odd():
    servers = []

    def start(data, other=None):
        servers.append(OddServer(data, other))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def noise(size=SIZE):
    return os.urandom(1 << 16) * (size >> 16) + os.urandom(size % (1 << 16))


def described(url, **options):
    scheme = url.split(":")[0]
    return "json:" + json.dumps(
        {"driver": "raw", "file": {"driver": scheme, "url": url, **options}}
    )


# --- real servers ---


@pytest.mark.parametrize(
    "path",
    [
        "disk.raw",
        "redir/disk.raw",
        "disk.qcow2",
        "top.qcow2",
        "disk.raw.xz",
        "disk.raw.gz",
        "noranges/disk.raw",
    ],
)
def test_convert(nginx, folder, cairn, path):
    cairn("convert", "-O", "raw", nginx.url(path), "out.raw")
    assert (folder / "out.raw").read_bytes() == (nginx.folder / "www/disk.raw").read_bytes()


def test_as_the_real_one(nginx, folder, ours, qemu):
    """`info`, `map` and what is refused, word for word."""
    for words in (
        ["info"],
        ["info", "--output=json"],
        ["info", "--backing-chain"],
        ["map", "--output=json"],
    ):
        for path in "disk.raw", "top.qcow2":
            assert ours(*words, nginx.url(path)).out == qemu(*words, nginx.url(path)).out
    same = described(nginx.url("disk.raw", tls=True), sslverify="off", cookie="a=b")
    assert ours("info", same).out == qemu("info", same).out
    for name in (
        "http:x",
        nginx.url("none"),
        nginx.url("auth/disk.raw"),
        "http://127.0.0.1:1/x",
        nginx.url("disk.raw", tls=True),
        'json:{"driver":"http","url":"https://x"}',
        'json:{"driver":"http"}',
        'json:{"driver":"http","url":"http://x","cookie":"a","cookie-secret":"b"}',
        'json:{"driver":"http","url":"http://x","readahead":1000}',
        'json:{"driver":"http","url":"http://x","bogus":1}',
        'json:{"driver":"http","url":"http://x","retries":1}',
        'json:{"driver":"http","url":"http://x","timeout":99999999999}',
        'json:{"driver":"http","url":"http://x","password-secret":"nope"}',
    ):
        theirs, mine = qemu("info", name, ok=False), ours("info", name, ok=False)
        # But for how long it took.
        said = [
            re.sub(r"after \d+ ms", "after some ms", done.err.splitlines()[0])
            for done in (mine, theirs)
        ]
        assert mine.code == theirs.code == 1 and said[0] == said[1]
    for words in (["create", nginx.url("new"), "1M"], ["resize", nginx.url("disk.raw"), "8M"]):
        words += ["-f", "raw"] if words[0] == "create" else []
        theirs, mine = qemu(*words, ok=False), ours(*words, ok=False)
        assert (mine.code, mine.err.splitlines()[0]) == (theirs.code, theirs.err.splitlines()[-1])


def test_passwords(nginx, folder, cairn):
    url = nginx.url("auth/disk.raw")
    shown = cairn("info", url.replace("//", "//me:secret@"))
    assert "secret" not in shown.out and "//me:***@" in shown.out
    cairn("compare", url.replace("//", "//me:secret@"), nginx.folder / "www/disk.raw")
    (folder / "pw").write_text("secret")
    opened = cairn(
        "info",
        "--object",
        "secret,id=s,file=pw",
        described(url, username="me", **{"password-secret": "s"}),
    )
    assert 'secret"' not in opened.out.replace('password-secret"', "")
    refused = cairn(
        "info",
        "--object",
        "secret,id=s,data=wrong",
        described(url, username="me", **{"password-secret": "s"}),
        ok=False,
    )
    assert refused.code == 1 and "401" in refused.err and "wrong" not in refused.err


def test_what_is_sent(nginx, folder, cairn):
    cairn(
        "info",
        "--object",
        "secret,id=t,data=X-Token: abc",
        described(nginx.url("disk.raw"), cookie="a=b; c=d", **{"header-secret": "t"}),
    )
    request, span, cookie, _, agent, token = nginx.seen()[-1].split("|")
    assert request.startswith("GET ") and span == "bytes=0-1048575" and cookie == "a=b; c=d"
    assert agent.startswith("cairn/") and token == "abc"
    assert not any(line.startswith("HEAD") for line in nginx.seen() if "cairn/" in line)


def test_files_that_identify_the_user(nginx, folder, cairn, monkeypatch):
    (folder / "cookies").write_text(
        "# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tname\tvalue\n"
    )
    cairn("info", described(nginx.url("disk.raw"), **{"cookie-file": str(folder / "cookies")}))
    assert nginx.seen()[-1].split("|")[2] == "name=value"
    (folder / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("HOME", str(folder))
    assert cairn("info", described(nginx.url("auth/disk.raw")), ok=False).code == 1
    cairn("info", described(nginx.url("auth/disk.raw"), netrc=True))


def test_tls(nginx, folder, cairn):
    url = nginx.url("disk.raw", tls=True)
    assert "certificate verification failed" in cairn("info", url, ok=False).err
    cairn(
        "compare",
        described(url, cafile=str(nginx.folder / "cert.pem")),
        nginx.folder / "www/disk.raw",
    )
    cairn("compare", described(url, sslverify=False), nginx.folder / "www/disk.raw")
    # Each refusal says what to do.
    assert "cafile" in cairn("info", url, ok=False).err.splitlines()[1]
    missing = cairn("info", described(url, cafile="none.pem"), ok=False).err
    assert "cafile" in missing.splitlines()[1]
    # Never from there to a line that is not encrypted.
    down = cairn("info", described(nginx.url("down/", tls=True), sslverify=False), ok=False)
    assert down.code == 1 and "http" in down.err


def test_names_with_spaces(nginx, cairn):
    (nginx.folder / "www/a b%.raw").write_bytes(noise(1 << 16))
    cairn("compare", "-f", "raw", nginx.url("a%20b%25.raw"), nginx.folder / "www/a b%.raw")
    wrong = cairn("info", nginx.url("a b%.raw"), ok=False)
    assert wrong.code == 1 and "%20" in wrong.err.splitlines()[1]


def test_serve_and_backing(nginx, folder, cairn, qemu):
    """A local overlay over a remote base, and short reads in order (which are read ahead)."""
    cairn("create", "-f", "qcow2", "-b", nginx.url("disk.raw"), "-F", "raw", "top.qcow2")
    cairn("io", "-c", "write -P 7 1M 64k", "top.qcow2")
    cairn("dd", f"if={nginx.url('disk.raw')}", "of=out.raw", "bs=4096")
    assert (folder / "out.raw").read_bytes() == (nginx.folder / "www/disk.raw").read_bytes()
    assert (
        "Pattern verification failed"
        not in cairn("io", "-r", "-c", "read -P 7 1M 64k", "top.qcow2").out
    )
    denied = cairn("info", "--untrusted", "--backing-chain", "top.qcow2", ok=False)
    assert denied.code == 1 and str(nginx.port) in denied.err


def test_random_reads_fetch_little(nginx, folder, cairn, odd):
    data = noise(16 << 20)
    server = odd(data)
    cairn(
        "io",
        "-r",
        "-f",
        "raw",
        *[word for at in range(2 << 20, 16 << 20, 2 << 20) for word in ("-c", f"read -v {at} 512")],
        server.url("plain"),
    )
    asked = [headers["Range"] for _, headers in server.asked[1:]]
    assert len(asked) == 7
    for text in asked:
        first, last = map(int, text.removeprefix("bytes=").split("-"))
        assert last - first + 1 == 64 << 10


LONG = ["slow", "long_cut", "long_busy", "long_whole", "long_short", "long_other", "long_stall"]


@pytest.mark.parametrize("behaviour", LONG)
def test_adjacent_reads_are_joined(odd, folder, cairn, behaviour):
    """What waits is asked for with what it follows; where that fails each piece is asked for alone."""
    data = noise(24 << 20)
    server = odd(data)
    name = described(server.url(behaviour), timeout=1, connections=4)
    cairn("convert", "-O", "raw", name, "out.raw", timeout=60)
    assert (folder / "out.raw").read_bytes() == data
    sizes = []
    for _, headers in server.asked[1:]:
        first, last = map(int, headers["Range"].removeprefix("bytes=").split("-"))
        sizes.append(last - first + 1)
    joined = sum(size > 2 << 20 for size in sizes)
    assert max(sizes) <= 8 << 20
    if behaviour == "slow":
        assert joined >= 2 and len(sizes) <= 10 and sum(sizes) <= len(data)
    elif behaviour in ("long_whole", "long_short", "long_other"):
        # Such a server is not asked so again, but by connections that had begun.
        assert 1 <= joined <= 4
    else:
        assert joined >= 1


@pytest.mark.parametrize("options, least, most", [({}, 5, 8), ({"connections": 3}, 3, 3)])
def test_more_connections_where_answers_take_long(odd, folder, cairn, options, least, most):
    data = noise(24 << 20)
    server = odd(data)
    cairn("convert", "-O", "raw", described(server.url("slow"), **options), "out.raw")
    assert (folder / "out.raw").read_bytes() == data
    assert least <= len(server.clients) <= most


def test_ftp(folder, cairn):
    (folder / "disk.raw").write_bytes(noise())
    port = free_port()
    job = subprocess.Popen(
        [
            "/usr/bin/python3",
            "-m",
            "pyftpdlib",
            "-i",
            "127.0.0.1",
            "-p",
            str(port),
            "-d",
            str(folder),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"ftp://127.0.0.1:{port}/disk.raw"
        until = time.monotonic() + 20
        while cairn("info", url, ok=False).code != 0:
            assert time.monotonic() < until
            time.sleep(0.1)
        cairn("convert", "-O", "raw", url, "out.raw")
        assert (folder / "out.raw").read_bytes() == (folder / "disk.raw").read_bytes()
        cairn("io", "-r", "-f", "raw", "-c", "read 1M 512", "-c", "read 2M 1k", url)
        missing = cairn("info", url + ".none", ok=False)
        assert missing.code == 1 and "file" in missing.err
    finally:
        job.terminate()
        job.wait(timeout=20)


def test_many_small_converts(nginx, folder, cairn):
    """A transfer that is never woken would hang: each of these takes some hundredths of a second."""
    for _ in range(40):
        cairn("convert", "-O", "raw", nginx.url("disk.raw"), "out.raw", "--overwrite", timeout=20)


# --- servers that misbehave ---

RIGHT = [
    "plain",
    "ignores_ranges",
    "short_parts",
    "cut",
    "busy_once",
    "later",
    "chunked",
    "hangs_up",
    "moved",
    "elsewhere",
    "more",
    "no_total",
]


@pytest.mark.parametrize("behaviour", RIGHT)
def test_right_data(odd, folder, cairn, behaviour):
    data = noise()
    server = odd(data)
    cairn("convert", "-O", "raw", server.url(behaviour), "out.raw", timeout=60)
    assert (folder / "out.raw").read_bytes() == data


WRONG = {
    "ranges_at_first": "returned the whole file for the range",
    "other_range": "returned range",
    "other_total": "changed on the server",
    "broken": "returned error: 500 (after 2 attempts)",
    "much_later": "come back in 3000 seconds",
    "changes": "changed on the server",
    "changes_unasked": "changed on the server",
    "changes_date": "changed on the server",
    "precondition": "changed on the server",
    "shorter": "changed on the server",
    "several": "several ranges",
    "nameless": "does not say which bytes",
    "whole_cut": "sent 1573120 bytes of the file only",
    "stalls": "after 2 attempts",
    "mute": "Could not open",
    "drip": "fewer bytes",
    "long_head": "too long",
    "garbage": "Could not open",
    "round": "redirects",
    "never": "Could not open",
}


@pytest.mark.parametrize("behaviour", WRONG)
def test_clear_error(odd, folder, cairn, behaviour):
    """An error that says what happened; no target is left, and no wrong byte."""
    server = odd(noise(), noise())
    name = described(server.url(behaviour), retries=1, timeout=1, connections=1)
    begun = time.monotonic()
    failed = cairn("convert", "-O", "raw", name, "out.raw", ok=False, timeout=60)
    assert failed.code == 1 and WRONG[behaviour] in failed.err, failed.err
    assert not (folder / "out.raw").exists() and time.monotonic() - begun < 40


@pytest.mark.parametrize("behaviour", ["empty", "empty_416"])
def test_empty(odd, cairn, behaviour):
    assert cairn("info", "--output", "json", odd(b"").url(behaviour)).json()["virtual-size"] == 0


def test_secrets_stay_with_their_server(odd, folder, cairn):
    """A redirection to another host gets no password, cookie or header."""
    server = odd(noise())
    cairn(
        "info",
        "--object",
        "secret,id=t,data=X-Token: abc",
        "--object",
        "secret,id=p,data=word",
        described(
            server.url("elsewhere"),
            cookie="a=b",
            username="me",
            **{"password-secret": "p", "header-secret": "t"},
        ),
    )
    cairn(
        "io",
        "-r",
        "-f",
        "raw",
        "-c",
        "read 2M 4k",
        server.url("elsewhere").replace("//", "//me:word@"),
    )
    first = [headers for path, headers in server.asked if path == "/elsewhere"]
    then = [headers for path, headers in server.asked if path == "/plain"]
    assert (
        first[0]["Cookie"] == "a=b" and "Authorization" in first[0] and first[0]["X-Token"] == "abc"
    )
    assert len(then) >= 3
    for headers in then:
        assert (
            "Authorization" not in headers and "Cookie" not in headers and "X-Token" not in headers
        )


@pytest.mark.parametrize("behaviour", ["mute", "stalls", "much_later_and_again"])
@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(odd, folder, behaviour, which):
    server = odd(noise())
    if behaviour == "much_later_and_again":
        behaviour = "broken"
    job = subprocess.Popen(
        [CAIRN, "convert", "-O", "raw", server.url(behaviour), "out.raw"], stderr=subprocess.PIPE
    )
    until = time.monotonic() + 20
    while len(server.asked) < (1 if behaviour == "mute" else 2):
        assert time.monotonic() < until
        time.sleep(0.05)
    time.sleep(0.3)
    begun = time.monotonic()
    job.send_signal(which)
    job.communicate(timeout=20)
    assert job.returncode == 128 + which and time.monotonic() - begun < 1.5
    assert not (folder / "out.raw").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["hash", "-f", "raw", "URL"],
        ["convert", "-f", "raw", "-O", "raw", "URL", "out.raw"],
        ["compare", "-f", "raw", "-F", "raw", "URL", "local.raw"],
        ["dd", "-f", "raw", "if=URL", "of=out.raw"],
        ["measure", "-O", "qcow2", "URL"],
        ["map", "URL"],
        ["check", "URL"],
        ["info", "URL"],
    ],
    ids=lambda words: words[0],
)
def test_interrupted_while_nobody_listens(odd, folder, words):
    """Ctrl-C between two attempts names the disk."""
    (folder / "local.raw").write_bytes(noise(8 << 20))
    url = odd(noise(8 << 20)).url("dies")
    job = subprocess.Popen(
        [CAIRN, *(word.replace("URL", url) for word in words)],
        stderr=subprocess.PIPE,
        text=True,
    )
    said = ""
    while "trying again" not in said:
        said = job.stderr.readline()
        assert said
    job.send_signal(signal.SIGINT)
    _, said = job.communicate(timeout=20)
    assert job.returncode == 128 + signal.SIGINT and f"{url}: cancelled" in said, said


@pytest.mark.parametrize(
    "words, most",
    [
        (["hash"], 160),
        (["bench", "-f", "raw", "-t", "none", "-d", "256", "-s", "65536", "-c", "1500"], 56),
    ],
    ids=["hash", "bench"],
)
def test_memory(odd, folder, cairn, words, most):
    """Reads ahead and many requests keep within some tens of MiB."""
    data = noise(96 << 20)
    server = odd(data)
    done = subprocess.run(
        ["/usr/bin/time", "-f", "%M", CAIRN, *words, server.url("plain")],
        capture_output=True,
        text=True,
        check=True,
    )
    if "asan" not in str(CAIRN):
        assert int(done.stderr.splitlines()[-1]) < most << 10


def test_without_the_library(folder, nginx):
    """The library is bound when a URL is opened, and named when it is missing."""
    done = subprocess.run(
        ["strace", "-f", "-e", "trace=openat", CAIRN, "info", nginx.folder / "www/disk.raw"],
        capture_output=True,
        text=True,
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
    )
    assert done.returncode == 0 and "libcurl" not in done.stderr
    blocked = subprocess.run(
        [
            "unshare",
            "-rm",
            "sh",
            "-c",
            'for f in /usr/lib/*/libcurl*.so.4; do mount --bind /dev/null "$f"; done; exec "$@"',
            "sh",
            CAIRN,
            "info",
            nginx.url("disk.raw"),
        ],
        capture_output=True,
        text=True,
    )
    assert (
        blocked.returncode == 1
        and "libcurl" in blocked.stderr
        and "apt-get install libcurl3-gnutls" in blocked.stderr
    )
