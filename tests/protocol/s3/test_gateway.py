"""S3 with a real service: Ceph's object gateway over a cluster of one node."""
# Packages: ceph-mon ceph-osd ceph-common python3-rados python3-rbd radosgw libcurl3-gnutls
import json
import os
import re
import signal
import subprocess
import time

import pytest

from conftest import CAIRN
from nbd_support import Server
from support.ceph import shared_ceph
from support.rgw import REGION, SECRET_KEY, Gateway
from support.s3 import presigned

# What a cluster may do wrong is tried with every build elsewhere.
pytestmark = [pytest.mark.any_engine, pytest.mark.slow]
SIZE = 13 * 1024 * 1024 + 512


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with shared_ceph(tmp_path_factory) as cluster:
        gateway = Gateway(cluster, tmp_path_factory.mktemp("rgw"))
        yield gateway
        gateway.stop()


@pytest.fixture(autouse=True)
def environment(monkeypatch, folder, gateway):
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("AWS_ENDPOINT_URL", gateway.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", gateway.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)


@pytest.fixture(scope="module")
def data():
    return os.urandom(1 << 16) * (SIZE >> 16) + os.urandom(SIZE % (1 << 16))


def name(gateway, key):
    return f"s3://{gateway.bucket}/{key}"


def test_there_and_back(gateway, folder, cairn, data):
    """Every kind of key, in one request and in parts; an older object stays until a new one is complete."""
    (folder / "in.raw").write_bytes(data)
    for key in "disk.raw", "a dir/50%+=~ü&?x.raw", "a//b/./c.raw":
        cairn("convert", "-f", "raw", "-o", "part-size=5M", "in.raw", name(gateway, key))
        cairn("convert", "-f", "raw", "--overwrite", name(gateway, key), "out.raw")
        assert (folder / "out.raw").read_bytes() == data
    assert gateway.ask("GET", "disk.raw") == data
    (folder / "small.raw").write_bytes(data[:512])
    cairn("convert", "-f", "raw", "--overwrite", "small.raw", name(gateway, "disk.raw"))
    assert gateway.ask("GET", "disk.raw") == data[:512]
    refused = cairn("convert", "-f", "raw", "in.raw", name(gateway, "disk.raw"), ok=False)
    assert refused.code == 1 and "exists already" in refused.err


def test_images(gateway, folder, cairn, data):
    (folder / "in.raw").write_bytes(data)
    cairn("convert", "-f", "raw", "--verify", "in.raw", name(gateway, "base.qcow2"))
    cairn("convert", "-f", "raw", "-c", "--verify", "in.raw", name(gateway, "packed.qcow2"))
    cairn("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", name(gateway, "top.qcow2"))
    cairn("compare", "-f", "raw", "in.raw", name(gateway, "top.qcow2"))
    cairn("create", "-f", "qcow2", "-b", name(gateway, "top.qcow2"), "-F", "qcow2", "over.qcow2")
    cairn("io", "-c", "write -P 7 1M 64k", "over.qcow2")
    assert (
        "verification failed" not in cairn("io", "-r", "-c", "read -P 7 1M 64k", "over.qcow2").out
    )


def test_serve(gateway, folder, cairn, qemu, data):
    """Another program reads an image of the service through us, on many connections of its own."""
    (folder / "in.raw").write_bytes(data)
    cairn("convert", "-f", "raw", "in.raw", name(gateway, "served.qcow2"))
    server = Server([CAIRN, "serve", "-r", "-k", "sock", name(gateway, "served.qcow2")], "sock")
    try:
        qemu("convert", "-O", "raw", server.uri(), "out.raw")
        jobs = [
            subprocess.Popen(["qemu-img", "convert", "-O", "raw", server.uri(), f"{i}.raw"])
            for i in range(4)
        ]
        assert all(job.wait(timeout=60) == 0 for job in jobs)
        if "asan" not in str(CAIRN):
            assert server.memory_kib("VmHWM") < 160 << 10
    finally:
        server.end()
    for copy in "out.raw", *(f"{i}.raw" for i in range(4)):
        assert (folder / copy).read_bytes() == data


def test_presigned(gateway, folder, cairn, data):
    gateway.ask("PUT", "signed.raw", data)
    url = presigned(
        f"{gateway.endpoint}/{gateway.bucket}/signed.raw",
        600,
        gateway.access_key,
        SECRET_KEY,
        REGION,
    )
    cairn("convert", "-f", "raw", url, "out.raw")
    assert (folder / "out.raw").read_bytes() == data


def test_refusals(gateway, folder, cairn, monkeypatch):
    gateway.ask("PUT", "empty.raw")
    assert cairn("info", "--output=json", name(gateway, "empty.raw")).json()["virtual-size"] == 0
    for wrong, error in {
        name(gateway, "none.raw"): "NoSuchKey",
        "s3://no-such-bucket/x": "NoSuchBucket",
    }.items():
        failed = cairn("info", wrong, ok=False)
        assert failed.code == 1 and error in failed.err
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "does not belong" in cairn("info", name(gateway, "empty.raw"), ok=False).err
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    assert (
        "does not know this access key" in cairn("info", name(gateway, "empty.raw"), ok=False).err
    )


def test_another_object(gateway, cairn, data):
    """An object that is replaced while it is open is an error, also with the size that it had."""
    gateway.ask("PUT", "moving.raw", data)
    job = subprocess.Popen(
        [CAIRN, "io", "-r", "-f", "raw", name(gateway, "moving.raw")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    job.stdin.write("read 0 512\n")
    job.stdin.flush()
    said = ""
    while "read 512/512" not in said:
        said += job.stdout.read(1)
    gateway.ask("PUT", "moving.raw", bytes(len(data)))
    said += job.communicate("read 8M 512\n", timeout=60)[0]
    assert "read failed: Input/output error" in said


def test_versions(gateway, folder, cairn, data):
    gateway.ask(
        "PUT",
        "",
        b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
        versioning="",
    )
    gateway.ask("PUT", "old and new.raw", data)
    gateway.ask("PUT", "old and new.raw", bytes(512))
    listed = gateway.ask("GET", "", versions="").decode()
    versions = re.findall(
        r"<Key>old and new.raw</Key><VersionId>([^<]+)</VersionId><IsLatest>false", listed
    )
    assert len(versions) == 1
    cairn(
        "convert",
        "-f",
        "raw",
        f"{name(gateway, 'old and new.raw')}?versionId={versions[0]}",
        "out.raw",
    )
    assert (folder / "out.raw").read_bytes() == data


def test_interrupted(gateway, folder):
    """No part stays at the service."""
    with open(folder / "in.raw", "wb") as file:
        file.write(os.urandom(1 << 20) * 8)
        file.truncate(2 << 30)
    words = ["-f", "raw", "-O", "raw", "-S", "0", "-o", "part-size=5M", "in.raw"]
    job = subprocess.Popen(
        [CAIRN, "convert", *words, name(gateway, "cut.raw")], stderr=subprocess.PIPE
    )
    until = time.monotonic() + 60
    while b"<UploadId>" not in gateway.ask("GET", "", uploads=""):
        assert time.monotonic() < until and job.poll() is None
        time.sleep(0.05)
    begun = time.monotonic()
    job.send_signal(signal.SIGINT)
    job.communicate(timeout=20)
    assert job.returncode == 128 + signal.SIGINT and time.monotonic() - begun < 5
    assert b"<UploadId>" not in gateway.ask("GET", "", uploads="")
    assert b"cut.raw" not in gateway.ask("GET", "")


def test_continued(gateway, folder, cairn):
    """After kill -9 the parts that the gateway has are not sent again."""
    (folder / "in.raw").write_bytes(os.urandom(24 << 20))
    words = ["convert", "-f", "raw", "-o", "part-size=5M", "--resume=journal", "in.raw"]
    words.append(name(gateway, "continued.raw"))
    job = subprocess.Popen([CAIRN, *words[:1], "--limit-rate", "16M", *words[1:]])
    until = time.monotonic() + 60
    journal = folder / "journal"
    while not (journal.exists() and " part " in journal.read_text()):
        assert time.monotonic() < until and job.poll() is None
        time.sleep(0.02)
    job.kill()
    job.wait()
    assert b"<UploadId>" in gateway.ask("GET", "", uploads="")
    done = cairn(*words, "--output=json").json()
    assert done["resumed-at"] >= 5 << 20 and not journal.exists()
    assert gateway.ask("GET", "continued.raw") == (folder / "in.raw").read_bytes()
    assert b"<UploadId>" not in gateway.ask("GET", "", uploads="")


def test_options(gateway, cairn, monkeypatch):
    """Everything by options, and a region that the gateway does not check."""
    gateway.ask("PUT", "plain.raw", bytes(512))
    for each in "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY":
        monkeypatch.delenv(each)
    options = {
        "driver": "s3",
        "bucket": gateway.bucket,
        "key": "plain.raw",
        "endpoint": gateway.endpoint,
        "access-key-id": gateway.access_key,
        "secret-key-secret": "s",
        "region": "eu-central-1",
    }
    described = "json:" + json.dumps({"driver": "raw", "file": options})
    shown = cairn("info", "--object", f"secret,id=s,data={SECRET_KEY}", described)
    assert "virtual size: 512 B" in shown.out and SECRET_KEY not in shown.out
