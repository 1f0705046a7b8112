"""S3 objects: a service that checks signatures, and one that lies, stalls, cuts and changes."""
# Packages: libcurl3-gnutls
import hashlib
import json
import os
import signal
import subprocess
import time

import pytest

from conftest import CAIRN
from support.s3 import ACCESS_KEY, REGION, SECRET_KEY, S3Server, presigned
from support.s3_service import environment, server  # noqa: F401  fixtures

pytestmark = pytest.mark.any_engine
SIZE = 3 * 1024 * 1024 + 512
DATA = os.urandom(1 << 16) * (SIZE >> 16) + os.urandom(SIZE % (1 << 16))


@pytest.fixture
def stored(server):
    """Puts an object into a bucket, under a key of its own; gives its name."""

    def put(bucket, data, key=None):
        key = key or f"k{len(server.objects)}/disk.raw"
        server.objects[bucket, key] = data
        return f"s3://{bucket}/{key}"

    return put


@pytest.fixture
def disk(stored):
    """An object with DATA."""
    return lambda bucket, key=None: stored(bucket, DATA, key)


def described(name, **options):
    bucket, key = name.removeprefix("s3://").split("/", 1)
    file = {"driver": "s3", "bucket": bucket, "key": key, **options}
    return "json:" + json.dumps({"driver": "raw", "file": file})


def converted(cairn, folder, name):
    cairn("convert", "-O", "raw", name, "out.raw", "--overwrite")
    return (folder / "out.raw").read_bytes()


# --- what works ---


@pytest.mark.parametrize(
    "key", ["disk.raw", "a dir/50%+=~ü.raw", "a/../b//c.raw", "what?x=y&z.raw"]
)
def test_any_key(folder, cairn, key, disk):
    assert converted(cairn, folder, disk("plain", key=key)) == DATA


def test_info(cairn, ours, disk):
    name = disk("plain")
    for program in cairn, ours:
        shown = program("info", name).out
        assert f"image: {name}\n" in shown and "file format: raw" in shown
    assert ours("info", "--output=json", name).json()["virtual-size"] == SIZE
    shown = cairn("info", described(name, region=REGION)).out
    assert '"region": "eu-west-1"' in shown and SECRET_KEY not in shown
    assert cairn("map", "--output=json", name).json()[0]["data"] is True


def test_versions(folder, cairn, disk):
    name = disk("plain")
    assert converted(cairn, folder, name + "?versionId=v1/~+") == DATA
    missing = cairn("info", name + "?versionId=2", ok=False)
    assert missing.code == 1 and "NoSuchVersion" in missing.err


def test_serve_io_and_backing(folder, cairn, qemu, disk, stored):
    """An image with a backing file in the same bucket, a local overlay, and reads at random."""
    (folder / "base.raw").write_bytes(DATA)
    qemu("create", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "top.qcow2")
    disk("plain", key="dir/base.raw")
    name = stored("plain", (folder / "top.qcow2").read_bytes(), key="dir/top.qcow2")
    assert converted(cairn, folder, name) == DATA.ljust(len(DATA) + -len(DATA) % 512, b"\0")
    cairn("create", "-f", "qcow2", "-b", name, "-F", "qcow2", "over.qcow2")
    cairn("io", "-c", "write -P 7 1M 64k", "over.qcow2")
    cairn("io", "-r", "-c", "read -P 7 1M 64k", "over.qcow2")
    assert (
        "Pattern verification failed"
        not in cairn("io", "-r", "-c", "read -P 7 1M 4k", "over.qcow2").out
    )
    denied = cairn("info", "--untrusted", "--backing-chain", "over.qcow2", ok=False)
    assert denied.code == 1 and "s3://" in denied.err


def test_presigned(folder, cairn, server, disk):
    """A signed URL needs no credentials, and is valid for GET alone."""
    bucket, key = disk("plain").removeprefix("s3://").split("/", 1)
    url = presigned(f"{server.endpoint}/{bucket}/{key}")
    assert converted(cairn, folder, url) == DATA
    refused = cairn("info", url[:-1] + ("0" if url[-1] != "0" else "1"), ok=False)
    assert refused.code == 1 and "403" in refused.err


def test_empty(cairn, stored):
    assert cairn("info", "--output", "json", stored("plain", b"")).json()["virtual-size"] == 0


@pytest.mark.parametrize(
    "bucket", ["slow-down", "cut", "more", "no-etag", "malformed", "other-region"]
)
def test_right_data(folder, cairn, monkeypatch, bucket, disk):
    """Refusals that pass, bodies that break off, and buckets in another region than was thought."""
    if bucket in ("malformed", "other-region"):
        monkeypatch.setenv("AWS_REGION", "us-east-1")
    assert converted(cairn, folder, disk(bucket)) == DATA


# --- who asks ---


def test_credentials_by_options(folder, cairn, monkeypatch, disk):
    for name in "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY":
        monkeypatch.delenv(name)
    name = disk("plain")
    missing = cairn("info", name, ok=False)
    assert missing.code == 1 and "there are no credentials" in missing.err
    (folder / "key").write_text(SECRET_KEY)
    options = {"access-key-id": ACCESS_KEY, "secret-key-secret": "s"}
    shown = cairn("info", "--object", "secret,id=s,file=key", described(name, **options))
    assert SECRET_KEY not in shown.out
    wrong = cairn(
        "info", "--object", "secret,id=s,data=wrong-key", described(name, **options), ok=False
    )
    assert wrong.code == 1 and "SignatureDoesNotMatch" in wrong.err and "wrong-key" not in wrong.err
    half = cairn("info", described(name, **{"access-key-id": "x"}), ok=False)
    assert half.code == 1 and "belong together" in half.err


def test_credentials_by_profile(folder, cairn, monkeypatch, server, disk):
    for name in "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL":
        monkeypatch.delenv(name)
    (folder / ".aws").mkdir()
    (folder / ".aws/credentials").write_text(
        f"[default]\naws_access_key_id = other\naws_secret_access_key = x\n"
        f"[work]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    )
    (folder / ".aws/config").write_text(
        f"[default]\nendpoint_url = {server.endpoint}\n"
        f"[profile work]\nregion = {REGION}\nendpoint_url = {server.endpoint}\n"
    )
    name = disk("plain")
    assert "InvalidAccessKeyId" in cairn("info", name, ok=False).err
    cairn("info", described(name, profile="work"))
    monkeypatch.setenv("AWS_PROFILE", "work")
    cairn("info", name)
    unknown = cairn("info", described(name, profile="none"), ok=False)
    assert unknown.code == 1 and "no profile 'none'" in unknown.err


def test_session_token(cairn, monkeypatch):
    server = S3Server(token="temporary+/=")
    try:
        server.objects["plain", "disk"] = DATA
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        refused = cairn("info", "s3://plain/disk", ok=False)
        assert refused.code == 1 and "get new credentials" in refused.err
        monkeypatch.setenv("AWS_SESSION_TOKEN", "temporary+/=")
        cairn("info", "s3://plain/disk")
    finally:
        server.stop()


def test_anonymous(cairn, monkeypatch, disk):
    name = disk("public")
    assert "AccessDenied" in cairn("info", name, ok=False).err
    cairn("info", described(name, anonymous=True))
    private = cairn("info", described(disk("plain"), anonymous=True), ok=False)
    assert private.code == 1 and "is not public" in private.err


def test_tls(folder, cairn, monkeypatch):
    """The certificate is checked, against the files that are named too."""
    words = "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 10 -subj /CN=x"
    words += " -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(["openssl", *words.split()], cwd=folder, check=True, capture_output=True)
    server = S3Server(tls=(folder / "cert.pem", folder / "key.pem"))
    try:
        server.objects["plain", "disk"] = DATA
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        refused = cairn("info", "s3://plain/disk", ok=False)
        assert refused.code == 1 and "certificate" in refused.err
        for options in {"cafile": str(folder / "cert.pem")}, {"sslverify": False}:
            cairn("info", described("s3://plain/disk", **options))
        monkeypatch.setenv("AWS_CA_BUNDLE", str(folder / "cert.pem"))
        assert converted(cairn, folder, "s3://plain/disk") == DATA
        cairn("convert", "-f", "raw", "out.raw", "s3://plain/back")
        assert server.objects["plain", "back"] == DATA
        assert hashes(server, "back") == {"UNSIGNED-PAYLOAD"}
        words = ["convert", "-f", "raw", "-o", "sign-payload=on", "out.raw", "s3://plain/signed"]
        cairn(*words)
        assert hashes(server, "signed") == {hashlib.sha256(DATA).hexdigest()}
    finally:
        server.stop()


@pytest.mark.parametrize(
    "words, error",
    [
        (["s3://plain"], "names no object"),
        (["s3://ab/x"], "no name of a bucket"),
        (['json:{"driver":"s3","bucket":"plain"}'], "needs the options bucket and key"),
        ([described("s3://plain/x", endpoint="ftp://x")], "The endpoint must be"),
        ([described("s3://plain/x", endpoint="http://me:pw@x")], "The endpoint must be"),
        ([described("s3://plain/x", region="../x")], "no name of a region"),
        ([described("s3://plain/x", connections=0)], "must be between 1 and 64"),
        ([described("s3://plain/x", endpoint="http://127.0.0.1:1")], "s3://plain/x: "),
        (["s3://plain/none.raw"], "NoSuchKey"),
    ],
    ids=lambda value: value if isinstance(value, str) else "name",
)
def test_wrong_names(cairn, words, error):
    failed = cairn("info", *words, ok=False)
    assert failed.code == 1 and error in failed.err


def test_objects_do_not_change(cairn, disk):
    name = disk("plain")
    for words in (
        ["resize", "-f", "raw", name, "8M"],
        ["io", "-f", "raw", "-c", "write 0 512", name],
    ):
        failed = cairn(*words, ok=False)
        assert failed.code == 1 and "an object cannot be changed" in failed.err


# --- services that misbehave ---

WRONG = {
    "always-slow": "503 SlowDown",
    "other-etag": "changed on the server",
    "other-object": "changed on the server",
    "other-range": "returned range",
    "other-total": "changed on the server",
    "stalls": "after 2 attempts",
    "skewed": "The clock of this machine",
    "expired": "get new credentials",
    "moves": "in the region eu-north-1, but not there either",
    "noise": "the server refused: 403",
    "endless": "the server refused: 403",
    "escapes": "403 Acc [31mess",
}


@pytest.mark.parametrize("bucket", WRONG)
def test_clear_error(folder, cairn, bucket, disk):
    """An error that says what happened; no target is left, and no wrong byte."""
    name = described(disk(bucket), retries=1, timeout=1, connections=1)
    begun = time.monotonic()
    failed = cairn("convert", "-O", "raw", name, "out.raw", ok=False)
    assert failed.code == 1 and WRONG[bucket] in failed.err, failed.err
    assert len(failed.err) < 2000 and "\x1b" not in failed.err
    assert not (folder / "out.raw").exists() and time.monotonic() - begun < 40


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(server, folder, which, stored):
    name = stored("stalls", os.urandom(8 << 20))
    before = len(server.asked)
    job = subprocess.Popen([CAIRN, "convert", "-O", "raw", name, "out.raw"], stderr=subprocess.PIPE)
    until = time.monotonic() + 20
    while len(server.asked) < before + 2:
        assert time.monotonic() < until
        time.sleep(0.05)
    begun = time.monotonic()
    job.send_signal(which)
    job.communicate(timeout=20)
    assert job.returncode == 128 + which and time.monotonic() - begun < 1.5
    assert not (folder / "out.raw").exists()


# --- uploading ---


def uploaded(cairn, server, folder, bucket, size=SIZE, part="5M", ok=True, options=(), words=()):
    """Converts SIZE bytes to a new object; the result of the run, and what the service has."""
    (folder / "in.raw").write_bytes((DATA * (size // SIZE + 1))[:size])
    key = f"up{len(server.asked)}.raw"
    options = ",".join([f"part-size={part}", *options])
    done = cairn(
        "convert",
        "-f",
        "raw",
        "-O",
        "raw",
        *words,
        "-o",
        options,
        "in.raw",
        f"s3://{bucket}/{key}",
        ok=ok,
    )
    return done, server.objects.get((bucket, key))


@pytest.mark.parametrize("size", [0, 512, SIZE, 5 << 20, (10 << 20) + 512, 24 << 20])
def test_upload(cairn, server, folder, size):
    begun = len(server.asked)
    _, stored = uploaded(cairn, server, folder, "plain", size)
    assert stored == (folder / "in.raw").read_bytes()
    asked = [(method, path.partition("?")[2]) for method, path, _ in server.asked[begun:]]
    if size <= 5 << 20:
        assert asked == [("GET", ""), ("PUT", "")]
    else:
        parts = sum("partNumber" in query for _, query in asked)
        assert parts == -(-size // (5 << 20)) and asked[-1][0] == "POST" and not server.uploads


def hashes(server, key):
    """What the requests that sent the bytes of an object had as their hash."""
    return {
        head["x-amz-content-sha256"]
        for method, path, head in server.asked
        if method == "PUT" and path.partition("?")[0].endswith(f"/{key}")
    }


def test_signed_payload(cairn, server, folder):
    """Without TLS what is sent is signed, part by part, unless that is not wanted."""
    data = (DATA * 4)[: 6 << 20]
    (folder / "in.raw").write_bytes(data)
    words = ["convert", "-f", "raw", "-o"]
    for key, option in ("signed", "part-size=5M"), ("bare", "part-size=5M,sign-payload=off"):
        cairn(*words, option, "in.raw", f"s3://plain/{key}")
        assert server.objects["plain", key] == data
    parts = data[: 5 << 20], data[5 << 20 :]
    assert hashes(server, "signed") == {hashlib.sha256(part).hexdigest() for part in parts}
    assert hashes(server, "bare") == {"UNSIGNED-PAYLOAD"}


def test_upload_formats(cairn, server, folder, qemu):
    """What can be sent while it is made, and what is made first; each read back by name."""
    (folder / "in.raw").write_bytes(DATA)
    for end, words in {
        "qcow2": [],
        "c.qcow2": ["-c"],
        "vmdk": ["-o", "subformat=streamOptimized"],
        "vhdx": [],
        "vdi": [],
        "vpc": ["-O", "vpc", "-o", "force_size=on"],
    }.items():
        name = f"s3://plain/formats/disk.{end}"
        cairn("convert", "-f", "raw", *words, "--verify", "in.raw", name)
        cairn("compare", "-f", "raw", "in.raw", name)
    (folder / "got.qcow2").write_bytes(server.objects["plain", "formats/disk.qcow2"])
    qemu("compare", "-f", "raw", "-F", "qcow2", "in.raw", "got.qcow2")
    assert "no errors" in qemu("check", "got.qcow2").out.lower()


def test_create_and_dd(cairn, ours, server, folder):
    made = cairn("create", "-f", "qcow2", "s3://plain/new.qcow2", "1G")
    assert "Formatting 's3://plain/new.qcow2', fmt=qcow2" in made.out
    assert cairn("info", "--output=json", "s3://plain/new.qcow2").json()["virtual-size"] == 1 << 30
    cairn("create", "-f", "raw", "s3://plain/zero.raw", "6M")
    assert server.objects["plain", "zero.raw"] == bytes(6 << 20)
    cairn("create", "-f", "qcow2", "-b", "new.qcow2", "-F", "qcow2", "s3://plain/top.qcow2")
    assert cairn("info", "--output=json", "s3://plain/top.qcow2").json()["virtual-size"] == 1 << 30
    (folder / "in.raw").write_bytes(DATA)
    cairn("dd", "-f", "raw", "if=in.raw", "of=s3://plain/dd.raw", "bs=512", "skip=1")
    assert server.objects["plain", "dd.raw"] == DATA[512:]
    ours("convert", "-f", "raw", "-O", "qcow2", "in.raw", "s3://plain/new.qcow2")
    assert cairn("info", "--output=json", "s3://plain/new.qcow2").json()["virtual-size"] == SIZE
    piped = subprocess.run([CAIRN, "convert", "-f", "raw", "-", "s3://plain/piped.raw"], input=DATA)
    assert piped.returncode == 0 and server.objects["plain", "piped.raw"] == DATA


def test_overwrite(cairn, server, folder):
    server.objects["plain", "old.raw"] = b"old" * 1000
    server.objects["plain", "empty.raw"] = b""
    (folder / "in.raw").write_bytes(DATA)
    for key in "old.raw", "empty.raw":
        refused = cairn("convert", "-f", "raw", "in.raw", f"s3://plain/{key}", ok=False)
        assert (
            refused.code == 1 and "exists already" in refused.err and "--overwrite" in refused.err
        )
    assert server.objects["plain", "old.raw"] == b"old" * 1000
    cairn("convert", "-f", "raw", "--overwrite", "in.raw", "s3://plain/old.raw")
    assert server.objects["plain", "old.raw"] == DATA
    hidden = cairn("convert", "-f", "raw", "in.raw", "s3://noise/new.raw", ok=False)
    assert hidden.code == 1 and "unless it may be replaced (--overwrite)" in hidden.err


@pytest.mark.parametrize(
    "words, error",
    [
        (["-O", "raw", "-o", "part-size=1M"], "must be between 5M and 5G"),
        (["-O", "qcow2", "-B", "base.raw", "-F", "raw"], "backing_file cannot be uploaded"),
        (["-O", "vmdk", "-o", "subformat=monolithicFlat"], "of several files cannot be uploaded"),
        (["-O", "ova"], "an appliance cannot be uploaded"),
        (["-O", "qcow2", "-n"], "an object cannot be changed"),
        (["-O", "raw", "-o", "bogus=1"], "bogus"),
    ],
    ids=lambda value: value if isinstance(value, str) else "words",
)
def test_not_uploaded(cairn, server, folder, words, error):
    for name in "in.raw", "base.raw":
        (folder / name).write_bytes(DATA)
    server.objects["plain", "there.raw"] = DATA
    name = "s3://plain/there.raw" if "-n" in words else "s3://plain/not.raw"
    failed = cairn("convert", "-f", "raw", *words, "in.raw", name, ok=False)
    assert failed.code == 1 and error in failed.err, failed.err
    assert ("plain", "not.raw") not in server.objects and not list(folder.glob("*flat*"))


@pytest.mark.parametrize(
    "bucket", ["part-slow", "part-reset", "late-error", "answer-lost", "malformed", "other-region"]
)
def test_upload_goes_on(cairn, server, folder, monkeypatch, bucket):
    """Failures that pass leave the object that was meant, and nothing else."""
    if bucket in ("malformed", "other-region"):
        monkeypatch.setenv("AWS_REGION", "us-east-1")
    _, stored = uploaded(cairn, server, folder, bucket, 12 << 20)
    assert stored == (folder / "in.raw").read_bytes() and not server.uploads


UPLOAD_FAILS = {
    "part-refused": "403 QuotaExceeded",
    "part-unnamed": "does not say what it stored",
    "part-stalls": "after 1 attempt",
    "late-refusal": "AccessDenied: you may not",
    "nameless": "it gave no id",
    "noise": "it gave no id",
    "complete-stalls": "after 1 attempt",
    "answer-lost-and-object": "NoSuchUpload",
    "abort-fails": "are still at the server, as the upload '2~id/",
    "abort-stalls": "are still at the server, as the upload '2~id/",
    "skewed": "The clock of this machine",
    "moves": "not there either",
}


@pytest.mark.parametrize("bucket", UPLOAD_FAILS)
def test_upload_fails(cairn, server, folder, bucket):
    """No object is left, and no part of one unless the error says so."""
    before = dict(server.uploads)
    failed, stored = uploaded(
        cairn,
        server,
        folder,
        bucket,
        12 << 20,
        ok=False,
        options=["retries=1" if "lost" in bucket else "retries=0", "timeout=1"],
        words=["--overwrite"],
    )
    assert failed.code == 1 and UPLOAD_FAILS[bucket] in failed.err, failed.err
    assert stored == (b"other" if "lost" in bucket else None)
    if bucket.startswith("abort"):
        server.uploads.clear()
    assert server.uploads.keys() <= before.keys()


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_upload_interrupted(server, folder, which):
    (folder / "in.raw").write_bytes(DATA * 8)
    before, aborted = len(server.asked), len(server.aborted)
    job = subprocess.Popen(
        [
            CAIRN,
            "convert",
            "-O",
            "raw",
            "-f",
            "raw",
            "-o",
            "part-size=5M",
            "in.raw",
            "s3://part-stalls/x",
        ],
        stderr=subprocess.PIPE,
    )
    until = time.monotonic() + 20
    while not any("partNumber" in path for _, path, _ in server.asked[before:]):
        assert time.monotonic() < until
        time.sleep(0.05)
    begun = time.monotonic()
    job.send_signal(which)
    job.communicate(timeout=20)
    assert job.returncode == 128 + which and time.monotonic() - begun < 1.5
    assert len(server.aborted) == aborted + 1 and ("part-stalls", "x") not in server.objects


def test_memory(server, folder):
    """An upload holds a few parts, however long it is."""
    with open(folder / "in.raw", "wb") as file:
        file.truncate(160 << 20)
    words = ["convert", "-f", "raw", "-O", "raw", "-S", "0", "in.raw", "s3://plain/long.raw"]
    done = subprocess.run(
        ["/usr/bin/time", "-f", "%M", CAIRN, *words], capture_output=True, text=True, check=True
    )
    assert server.objects.pop(("plain", "long.raw")) == bytes(160 << 20)
    if "asan" not in str(CAIRN):
        assert int(done.stderr.splitlines()[-1]) < 160 << 10
