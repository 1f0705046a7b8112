"""Who asks a web server: client certificates, trusted directories, proxies with a login, cookies; with QEMU's client where it has the option."""
# Packages: nginx-light libcurl3-gnutls openssl
import json
import subprocess

import pytest

from conftest import sparse_disk
from support.proxy import Proxy
from support.web import Nginx, free_port

pytestmark = pytest.mark.any_engine
SIZE = 1 << 20


def made_certificate(folder, name):
    """A key and a certificate that nobody signed but itself."""
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key"]
    more = ["-out", f"{name}.pem", "-days", "10", "-subj", f"/CN={name}"]
    subprocess.run(["openssl", *words, *more], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def nginx(tmp_path_factory):
    """At `strict` only the certificate "client" is let in."""
    folder = tmp_path_factory.mktemp("nginx")
    for name in "client", "stranger":
        made_certificate(folder, name)
    port = free_port()
    server = Nginx(
        folder,
        f"""server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {folder}/cert.pem;
  ssl_certificate_key {folder}/key.pem; root {folder}/www;
  ssl_client_certificate {folder}/client.pem; ssl_verify_client on; }}""",
    )
    server.strict = f"https://127.0.0.1:{port}/disk.raw"
    sparse_disk(folder / "www/disk.raw", SIZE)
    yield server
    server.stop()


@pytest.fixture
def proxy(monkeypatch):
    one = Proxy()
    for name in "http_proxy", "https_proxy":
        monkeypatch.setenv(name, one.url)
    for name in "no_proxy", "NO_PROXY":
        monkeypatch.delenv(name, raising=False)
    yield one
    one.stop()


@pytest.fixture
def direct(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


def described(url, **options):
    file = {"driver": url.split(":")[0], "url": url, **options}
    return "json:" + json.dumps({"driver": "raw", "file": file})


def secrets(folder, **values):
    """Words that define secrets, which are read from files."""
    words = []
    for name, value in values.items():
        (folder / name).write_text(value)
        words += ["--object", f"secret,id={name},file={folder / name}"]
    return words


# --- TLS ---


def test_client_certificate(nginx, direct, cairn):
    mine = {
        name: str(nginx.folder / f"client.{end}")
        for name, end in (("certificate", "pem"), ("key", "key"))
    }
    trust = {"cafile": str(nginx.folder / "cert.pem")}
    disk = nginx.folder / "www/disk.raw"
    cairn("compare", described(nginx.strict, **trust, **mine), disk)
    without = cairn("info", described(nginx.strict, **trust), ok=False)
    assert without.code == 1 and "400" in without.err


@pytest.mark.parametrize(
    "case, words",
    [("stranger", "400"), ("missing", "none.pem"), ("mixed", ""), ("no_key", "")],
)
def test_bad_certificate(nginx, direct, cairn, case, words):
    at = {"cafile": str(nginx.folder / "cert.pem")}
    at["certificate"] = str(nginx.folder / ("none.pem" if case == "missing" else "stranger.pem"))
    if case != "no_key":
        at["key"] = str(nginx.folder / ("client.key" if case == "mixed" else "stranger.key"))
    failed = cairn("info", described(nginx.strict, **at), ok=False)
    assert failed.code == 1 and failed.err.count("\n") < 4 and words in failed.err, failed.err


def test_trusted_directory(nginx, direct, folder, cairn):
    """The certificates of a directory, by their hashes as `openssl rehash` names them."""
    trusted, empty = folder / "trusted", folder / "empty"
    for each in trusted, empty:
        each.mkdir()
    (trusted / "ca.pem").write_bytes((nginx.folder / "cert.pem").read_bytes())
    subprocess.run(["openssl", "rehash", trusted], check=True)
    url = nginx.url("disk.raw", tls=True)
    cairn("compare", described(url, capath=str(trusted)), nginx.folder / "www/disk.raw")
    failed = cairn("info", described(url, capath=str(empty)), ok=False)
    assert failed.code == 1 and "certificate verification failed" in failed.err


# --- proxies ---


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_proxy(nginx, proxy, folder, cairn, ours, qemu, tls):
    """The same options, and the same data, with our tools and QEMU's; the password is in no output."""
    login = {"proxy-username": "me", "proxy-password-secret": "p"}
    more = {"sslverify": "off"} if tls else {}
    name = described(nginx.url("disk.raw", tls=tls), **login, **more)
    right, wrong = secrets(folder, p="open sesame"), secrets(folder, q="bogus-1")
    for tool in cairn, ours, qemu:
        tool("convert", *right, "-O", "raw", name, "out.raw")
        assert (folder / "out.raw").read_bytes() == (nginx.folder / "www/disk.raw").read_bytes()
        (folder / "out.raw").unlink()
    assert {method for method, _, good in proxy.asked if good} >= ({"CONNECT"} if tls else {"GET"})
    told = cairn("info", *right, name)
    assert "open sesame" not in told.out + told.err
    asked = len(proxy.asked)
    refused = cairn("info", *wrong, name.replace('"p"', '"q"'), ok=False)
    assert refused.code == 1 and "407" in refused.err and "bogus-1" not in refused.err
    assert len(proxy.asked) - asked <= 2
    assert qemu("info", *wrong, name.replace('"p"', '"q"'), ok=False).code == 1


def test_proxy_without_a_login(nginx, proxy, cairn):
    failed = cairn("info", nginx.url("disk.raw"), ok=False)
    assert failed.code == 1 and "407" in failed.err


def test_no_proxy(nginx, proxy, cairn, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    cairn("info", nginx.url("disk.raw"))
    assert proxy.asked == []


# --- cookies ---


def test_cookie_secret(nginx, direct, folder, cairn, ours, qemu):
    name = described(nginx.url("disk.raw"), **{"cookie-secret": "c"})
    for tool in cairn, ours, qemu:
        said = tool("info", *secrets(folder, c="session=bogus-1; b=2"), name)
        assert nginx.seen()[-1].split("|")[2] == "session=bogus-1; b=2"
        assert "bogus-1" not in said.out + said.err
