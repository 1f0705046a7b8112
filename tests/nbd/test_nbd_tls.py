"""TLS of the NBD server, with certificates and keys made here, and the clients that people use."""
import os
import ssl
import struct
import subprocess

import pytest

from conftest import CAIRN, call
from nbd_support import (
    ACK,
    EXPORT_NAME,
    GO,
    IHAVEOPT,
    INVALID,
    LIST,
    QEMU_NBD,
    SET_META,
    STARTTLS,
    STRUCTURED_REPLY,
    TLS_REQD,
    Client,
    Closed,
    Server,
    free_port,
)


def certtool(*words):
    subprocess.run(["certtool", *map(str, words)], check=True, capture_output=True)


def make_authority(folder, name):
    folder.mkdir(exist_ok=True)
    certtool("--generate-privkey", "--bits", "2048", "--outfile", folder / "ca-key.pem")
    (folder / "ca.info").write_text(f"cn = {name}\nca\ncert_signing_key\nexpiration_days = 30\n")
    certtool(
        "--generate-self-signed",
        "--load-privkey",
        folder / "ca-key.pem",
        "--template",
        folder / "ca.info",
        "--outfile",
        folder / "ca-cert.pem",
    )


def make_certificate(folder, kind, name, extra=""):
    certtool("--generate-privkey", "--bits", "2048", "--outfile", folder / f"{kind}-key.pem")
    usage = "tls_www_server" if kind == "server" else "tls_www_client"
    (folder / "cert.info").write_text(
        f"cn = {name}\n{usage}\nencryption_key\nsigning_key\nexpiration_days = 20\n{extra}"
    )
    certtool(
        "--generate-certificate",
        "--load-ca-certificate",
        folder / "ca-cert.pem",
        "--load-ca-privkey",
        folder / "ca-key.pem",
        "--load-privkey",
        folder / f"{kind}-key.pem",
        "--template",
        folder / "cert.info",
        "--outfile",
        folder / f"{kind}-cert.pem",
    )


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    top = tmp_path_factory.mktemp("pki")
    good = top / "good"
    make_authority(good, "good")
    make_certificate(good, "server", "localhost", "dns_name = localhost\nip_address = 127.0.0.1\n")
    make_certificate(good, "client", "alice")
    other = top / "other"
    make_authority(other, "other")
    make_certificate(other, "server", "localhost", "dns_name = localhost\n")
    make_certificate(other, "client", "mallory")
    psk = top / "psk"
    psk.mkdir()
    subprocess.run(
        ["psktool", "-u", "alice", "-p", psk / "keys.psk"], check=True, capture_output=True
    )
    wrong = top / "wrong"
    wrong.mkdir()
    subprocess.run(
        ["psktool", "-u", "alice", "-p", wrong / "keys.psk"], check=True, capture_output=True
    )
    return top


@pytest.fixture
def server(folder):
    running = []

    def start(*words):
        port = free_port()
        disk = folder / "d.raw"
        if not disk.exists():
            disk.write_bytes(os.urandom(1 << 20))
        running.append(
            Server(
                [
                    QEMU_NBD,
                    "-t",
                    "-e",
                    "0",
                    "-b",
                    "127.0.0.1",
                    "-p",
                    port,
                    "-x",
                    "tls",
                    "-D",
                    "text",
                    "-f",
                    "raw",
                    *words,
                    disk,
                ],
                "",
                port=port,
            )
        )
        return running[-1]

    yield start
    for one in running:
        assert one.alive()
        one.end()


def x509(folder, *more):
    return [
        "--object",
        ",".join([f"tls-creds-x509,id=t0,endpoint=server,dir={folder}", *more]),
        "--tls-creds",
        "t0",
    ]


def nbdinfo(uri, ok=True):
    return call("nbdinfo", "--size", uri, ok=ok)


def qemu_reads(server, folder, ok=True, kind="x509", more=""):
    return call(
        "qemu-img",
        "info",
        "--object",
        f"tls-creds-{kind},id=c0,endpoint=client,dir={folder}{more}",
        "--image-opts",
        f"driver=raw,file.driver=nbd,file.server.type=inet,file.server.host=localhost,"
        f"file.server.port={server.port},file.export=tls,file.tls-creds=c0",
        ok=ok,
    )


def test_certificates_work_with_every_client(server, pki):
    one = server(*x509(pki / "good"))
    uri = one.uri("tls", "nbds")
    assert nbdinfo(f"{uri}?tls-certificates={pki}/good").out == f"{1 << 20}\n"
    assert "1 MiB" in qemu_reads(one, pki / "good").out
    call("nbdcopy", f"{uri}?tls-certificates={pki}/good", "back.raw")
    assert open("back.raw", "rb").read() == open("d.raw", "rb").read()
    words = [
        "-L",
        "-b",
        "localhost",
        "-p",
        one.port,
        "--object",
        f"tls-creds-x509,id=c,endpoint=client,dir={pki}/good",
        "--tls-creds",
        "c",
    ]
    assert call(QEMU_NBD, *words).out == call("qemu-nbd", *words).out


def test_shared_keys_work_with_every_client(server, pki):
    one = server(
        "--object", f"tls-creds-psk,id=t0,endpoint=server,dir={pki}/psk", "--tls-creds", "t0"
    )
    uri = f"nbds://alice@localhost:{one.port}/tls"
    assert nbdinfo(f"{uri}?tls-psk-file={pki}/psk/keys.psk").out == f"{1 << 20}\n"
    assert "1 MiB" in qemu_reads(one, pki / "psk", kind="psk", more=",username=alice").out
    assert nbdinfo(f"{uri}?tls-psk-file={pki}/wrong/keys.psk", ok=False).code != 0
    failed = call(
        QEMU_NBD,
        "-L",
        "-p",
        one.port,
        "-b",
        "localhost",
        "--object",
        f"tls-creds-psk,id=c,endpoint=client,dir={pki}/psk,username=bob",
        "--tls-creds",
        "c",
        ok=False,
    )
    assert failed.code == 1 and "Username bob not found in PSK file" in failed.err


def test_cve_2024_7383_certificates_are_checked(server, pki, folder):
    one = server(*x509(pki / "good"))
    # A client of another authority, and one without a certificate.
    assert qemu_reads(one, pki / "other", ok=False).code == 1
    bare = folder / "bare"
    bare.mkdir()
    (bare / "ca-cert.pem").write_bytes((pki / "good/ca-cert.pem").read_bytes())
    assert nbdinfo(f"{one.uri('tls', 'nbds')}?tls-certificates={bare}", ok=False).code != 0
    # Our own client side looks at chain and name.
    for creds, more, text in (
        (f"{pki}/other", [], "hasn't got a known issuer"),
        (
            f"{pki}/good",
            ["--tls-hostname", "elsewhere.example"],
            "Certificate does not match the hostname elsewhere.example",
        ),
    ):
        failed = call(
            QEMU_NBD,
            "-L",
            "-b",
            "localhost",
            "-p",
            one.port,
            "--object",
            f"tls-creds-x509,id=c,endpoint=client,dir={creds}",
            "--tls-creds",
            "c",
            *more,
            ok=False,
        )
        assert failed.code == 1 and text in failed.err
    assert nbdinfo(f"{one.uri('tls', 'nbds')}?tls-certificates={pki}/good").code == 0


def test_peers_are_let_in_unverified_when_asked(server, pki, folder):
    one = server(*x509(pki / "good", "verify-peer=off"))
    bare = folder / "bare"
    bare.mkdir()
    (bare / "ca-cert.pem").write_bytes((pki / "good/ca-cert.pem").read_bytes())
    assert nbdinfo(f"{one.uri('tls', 'nbds')}?tls-certificates={bare}").code == 0


def test_cve_2013_6410_access_lists_match_exactly(server, pki):
    for identity, allowed in (
        ("CN=alice", True),
        ("CN=alic", False),
        ("CN=alice2", False),
        ("*", False),
    ):
        one = server(
            *x509(pki / "good"),
            "--object",
            f"authz-simple,id=a0,identity={identity}",
            "--tls-authz",
            "a0",
        )
        done = nbdinfo(f"{one.uri('tls', 'nbds')}?tls-certificates={pki}/good", ok=False)
        assert (done.code == 0) == allowed, identity
    one = server(
        *x509(pki / "good"),
        "--object",
        "authz-list,id=a0,policy=deny,rules.0.match=CN=al*,rules.0.format=glob,rules.0.policy=allow",
        "--tls-authz",
        "a0",
    )
    assert nbdinfo(f"{one.uri('tls', 'nbds')}?tls-certificates={pki}/good").code == 0
    one = server(*x509(pki / "good"), "--tls-authz", "missing")
    assert nbdinfo(f"{one.uri('tls', 'nbds')}?tls-certificates={pki}/good", ok=False).code != 0


def test_cve_2019_14842_tls_is_absolute(server, pki):
    one = server(*x509(pki / "good"))
    client = one.client()
    for option in (LIST, GO, STRUCTURED_REPLY, SET_META, 99):
        assert client.ask(option, b"")[-1] == (
            TLS_REQD,
            f"Option 0x{option:x} not permitted before TLS".encode(),
        )
    client.option(EXPORT_NAME, b"tls")
    assert client.is_dropped()
    for mine, theirs, words in (
        (QEMU_NBD, "qemu-nbd", ["-L", "-b", "localhost", "-p", one.port]),
        (QEMU_NBD.with_name("qemu-img"), "qemu-img", ["info", f"nbd://localhost:{one.port}/tls"]),
    ):
        failed = call(mine, *words, ok=False)
        assert failed.code == 1 and "TLS negotiation required before option" in failed.err
        assert "Did you forget a valid tls-creds?" in failed.err
        assert failed.err == call(theirs, *words, ok=False).err


def tls_client(server, pki):
    """A client of our own inside of TLS."""
    client = server.client()
    assert client.ask(STARTTLS)[-1][0] == ACK
    context = ssl.create_default_context(cafile=pki / "good/ca-cert.pem")
    context.load_cert_chain(pki / "good/client-cert.pem", pki / "good/client-key.pem")
    client.sock = context.wrap_socket(client.sock, server_hostname="localhost")
    return client


def test_starttls_once_and_without_data(server, pki):
    one = server(*x509(pki / "good"))
    client = one.client()
    assert client.ask(STARTTLS, b"x")[-1][0] == INVALID
    assert client.is_dropped()
    client = tls_client(one, pki)
    assert client.ask(STARTTLS)[-1][0] == INVALID
    assert client.start(name="tls").works()


def test_cve_2021_3716_starttls_injection(server, pki):
    one = server(*x509(pki / "good"))
    # Behind STARTTLS in one packet, and behind the acknowledgement where a handshake belongs.
    injected = struct.pack(">QII", IHAVEOPT, STRUCTURED_REPLY, 0)
    client = one.client()
    client.send(struct.pack(">QII", IHAVEOPT, STARTTLS, 0) + injected)
    assert client.is_dropped()
    client = one.client()
    assert client.ask(STARTTLS)[-1][0] == ACK
    client.send(injected)
    assert client.is_dropped()
    # What was agreed on before counts no more.
    client = tls_client(one, pki)
    assert client.contexts("base:allocation", name="tls")[-1][0] == INVALID


def test_connections_broken_in_the_tls_handshake(server, pki):
    one = server(*x509(pki / "good"))
    for junk in (
        b"",
        b"\x16",
        b"\x16\x03\x01\x02\x00" + b"x" * 100,
        b"GET / HTTP/1.0\r\n\r\n",
        os.urandom(5000),
    ):
        client = one.client()
        assert client.ask(STARTTLS)[-1][0] == ACK
        client.send(junk)
        client.close()
    client = tls_client(one, pki).start(name="tls")
    client.sock.unwrap = None
    assert client.works()


@pytest.mark.parametrize(
    "damage, text",
    [
        ("missing dir", "Missing 'dir' property value"),
        ("no files", "Unable to access credentials"),
        ("client as server", "purpose|Unable to access credentials"),
        ("bad endpoint", "does not accept value"),
        ("bad priority", "Unable to set TLS session priority"),
        ("unknown property", "not found"),
        ("user on server", "username should not be set"),
    ],
)
def test_wrong_credentials_are_told(folder, pki, damage, text):
    import re

    good = pki / "good"
    words = {
        "missing dir": "tls-creds-x509,id=t0,endpoint=server",
        "no files": f"tls-creds-x509,id=t0,endpoint=server,dir={folder}",
        "client as server": f"tls-creds-x509,id=t0,endpoint=server,dir={pki / 'psk'}",
        "bad endpoint": f"tls-creds-x509,id=t0,endpoint=both,dir={good}",
        "bad priority": f"tls-creds-x509,id=t0,endpoint=server,dir={good},priority=NONSENSE",
        "unknown property": f"tls-creds-x509,id=t0,endpoint=server,dir={good},colour=red",
        "user on server": f"tls-creds-psk,id=t0,endpoint=server,dir={pki / 'psk'},username=x",
    }[damage]
    (folder / "d.raw").write_bytes(bytes(512))
    failed = call(
        QEMU_NBD,
        "--object",
        words,
        "--tls-creds",
        "t0",
        "-k",
        folder / "s.sock",
        "-f",
        "raw",
        "d.raw",
        ok=False,
    )
    assert failed.code == 1 and re.search(text, failed.err), failed.err


def test_other_ends_credentials_and_other_objects_are_refused(folder, pki):
    (folder / "d.raw").write_bytes(bytes(512))
    for definition in (
        f"tls-creds-x509,id=t0,endpoint=client,dir={pki / 'good'}",
        "secret,id=t0,data=x",
        f"tls-creds-x509,id=other,endpoint=server,dir={pki / 'good'}",
    ):
        answers = [
            call(
                program,
                "--object",
                definition,
                "--tls-creds",
                "t0",
                "-k",
                folder / "s.sock",
                "-f",
                "raw",
                "d.raw",
                ok=False,
            )
            for program in (QEMU_NBD, "qemu-nbd")
        ]
        assert [answer.code for answer in answers] == [1, 1]
        assert answers[0].err == answers[1].err
