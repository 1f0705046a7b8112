"""LUKS images next to qemu-img, qemu-io and cryptsetup, both ways; secrets; key slots."""
import os
import pty
import subprocess
import termios
import time

import pytest

from conftest import CAIRN, call

pytestmark = pytest.mark.any_engine

QUICK = "iter-time=10"
S0 = "--object=secret,id=s0,file=pw0"
S1 = "--object=secret,id=s1,file=pw1"


def luks(name, secret="s0", **more):
    words = "".join(f",{key.replace('_', '-')}={value}" for key, value in more.items())
    return f"driver=luks,key-secret={secret},file.filename={name}{words}"


@pytest.fixture(autouse=True)
def passwords(folder):
    (folder / "pw0").write_text("correct horse")
    (folder / "pw1").write_text("battery staple")
    (folder / "key.b64").write_text("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")


def cryptsetup(*words, ok=True):
    return call("cryptsetup", *words, ok=ok)


KINDS = [
    "cipher-alg=aes-256,cipher-mode=xts",
    "cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv",
    "cipher-alg=aes-192,cipher-mode=xts,hash-alg=sha512",
    "cipher-alg=serpent-256,cipher-mode=xts,hash-alg=ripemd160",
    "cipher-alg=twofish-192,cipher-mode=xts",
    "cipher-alg=cast5-128,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=md5",
    "cipher-mode=ctr,ivgen-alg=plain,hash-alg=sm3",
]


@pytest.mark.parametrize("kind", KINDS)
def test_qemu_and_cairn_read_each_other(cairn, qemu, disk, kind):
    cairn(
        "convert",
        "-q",
        S0,
        "-f",
        "raw",
        "-O",
        "luks",
        "-o",
        f"key-secret=s0,{QUICK},{kind}",
        disk,
        "ours.luks",
    )
    qemu(
        "convert",
        S0,
        "-f",
        "raw",
        "-O",
        "luks",
        "-o",
        f"key-secret=s0,{QUICK},{kind}",
        disk,
        "theirs.luks",
    )
    plain = f"driver=raw,file.filename={disk}"
    qemu("compare", S0, "--image-opts", luks("ours.luks"), plain)
    cairn("compare", S0, "--image-opts", luks("theirs.luks"), plain)
    assert os.path.getsize("ours.luks") == os.path.getsize("theirs.luks")
    mine, other = (
        qemu("info", "--output=json", name).json() for name in ("ours.luks", "theirs.luks")
    )
    for info in (mine, other):
        for key in ("uuid", "slots", "master-key-iters"):
            del info["format-specific"]["data"][key]
    assert mine["format-specific"] == other["format-specific"]


@pytest.mark.parametrize("output", ["human", "json"])
def test_info_is_qemus(ours, qemu, output):
    qemu(
        "create",
        "-q",
        S0,
        "-f",
        "luks",
        "-o",
        f"key-secret=s0,{QUICK},cipher-mode=cbc,ivgen-alg=essiv",
        "a.luks",
        "1M",
    )
    assert (
        ours("info", f"--output={output}", "a.luks").out
        == qemu("info", f"--output={output}", "a.luks").out
    )
    assert (
        ours("map", S0, "--output=json", "--image-opts", luks("a.luks")).out
        == qemu("map", S0, "--output=json", "--image-opts", luks("a.luks")).out
    )


def test_keys_of_24_bytes_are_padded_as_cryptsetup_does(cairn, disk):
    """qemu-img aborts on these."""
    cairn(
        "convert",
        "-q",
        S0,
        "-O",
        "luks",
        "-o",
        f"key-secret=s0,{QUICK},cipher-alg=aes-192,cipher-mode=cbc",
        disk,
        "a.luks",
    )
    cryptsetup("open", "--test-passphrase", "--type", "luks1", "--key-file", "pw0", "a.luks")
    cairn("compare", S0, "--image-opts", luks("a.luks"), f"driver=raw,file.filename={disk}")


def test_cryptsetup_knows_our_images(cairn, disk):
    cairn("convert", "-q", S0, "-O", "luks", "-o", f"key-secret=s0,{QUICK}", disk, "a.luks")
    dump = cryptsetup("luksDump", "a.luks").out
    assert (
        "xts-plain64" in dump and "Payload offset:\t4040" in dump and "Key Slot 0: ENABLED" in dump
    )
    cryptsetup("open", "--test-passphrase", "--type", "luks1", "--key-file", "pw0", "a.luks")
    assert (
        cryptsetup(
            "open", "--test-passphrase", "--type", "luks1", "--key-file", "pw1", "a.luks", ok=False
        ).code
        == 2
    )
    # Slots that cryptsetup adds open here; those that it kills do not.
    cryptsetup(
        "luksAddKey", "-q", "--pbkdf-force-iterations", "1000", "--key-file", "pw0", "a.luks", "pw1"
    )
    plain = f"driver=raw,file.filename={disk}"
    cairn("compare", S1, "--image-opts", luks("a.luks", "s1"), plain)
    cryptsetup("luksKillSlot", "-q", "--key-file", "pw1", "a.luks", "0")
    refused = cairn("compare", S0, "--image-opts", luks("a.luks"), plain, ok=False)
    assert "Invalid password, cannot unlock any keyslot" in refused.err


@pytest.mark.parametrize(
    "words",
    [
        ["--type", "luks2", "--pbkdf", "pbkdf2"],
        [
            "--type",
            "luks2",
            "--pbkdf",
            "argon2id",
            "--pbkdf-memory",
            "1024",
            "--pbkdf-parallel",
            "1",
        ],
        [
            "--type",
            "luks2",
            "--pbkdf",
            "argon2i",
            "--pbkdf-memory",
            "1024",
            "--pbkdf-parallel",
            "1",
            "--sector-size",
            "4096",
        ],
    ],
    ids=str,
)
def test_what_cryptsetup_encrypts_in_place_is_read_and_written(cairn, ours, disk, words):
    """`reencrypt --encrypt` works on plain files, without the kernel."""
    content = disk.read_bytes() + bytes(4096 - disk.stat().st_size % 4096)
    disk.write_bytes(content)
    iterations = ["--pbkdf-force-iterations", "4" if "argon2" in str(words) else "1000"]
    with open("a.img", "wb") as out:
        out.write(content + bytes(32 << 20))
    cryptsetup(
        "reencrypt",
        "--encrypt",
        "-q",
        "--reduce-device-size",
        "32M",
        "--key-file",
        "pw0",
        *iterations,
        *words,
        "a.img",
    )
    for info in (ours("info", "-f", "luks", "a.img").out, cairn("info", "a.img").out):
        assert "file format: luks" in info and "encrypted: yes" in info
    assert "file format: raw" in ours("info", "a.img").out
    cairn("convert", "-q", S0, "-O", "raw", "--image-opts", luks("a.img"), "back.raw")
    assert open("back.raw", "rb").read(len(content)) == content
    # What is written here, cryptsetup decrypts.
    with open("new.raw", "wb") as out:
        out.write(content[::-1])
    size = cairn("info", "--output=json", "-f", "luks", "a.img").json()["virtual-size"]
    os.truncate("new.raw", size)
    cairn("convert", "-q", "-n", S0, "-f", "raw", "--target-image-opts", "new.raw", luks("a.img"))
    cairn("compare", "-q", S0, "--image-opts", luks("a.img"), "driver=raw,file.filename=new.raw")
    cryptsetup(
        "reencrypt",
        "--decrypt",
        "-q",
        "--force-offline-reencrypt",
        "--header",
        "head.img",
        "--key-file",
        "pw0",
        "a.img",
    )
    assert open("a.img", "rb").read(size) == open("new.raw", "rb").read()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["-c", "aes-cbc-essiv:sha256", "-s", "128", "-h", "sha512"],
        ["-c", "aes-xts-plain64", "-s", "256"],
    ],
    ids=str,
)
def test_images_that_cryptsetup_made_take_data(cairn, qemu, disk, words):
    with open("a.img", "wb") as out:
        out.truncate(8 << 20)
    cryptsetup(
        "luksFormat",
        "-q",
        "--type",
        "luks1",
        "--pbkdf-force-iterations",
        "1000",
        "--key-file",
        "pw0",
        *words,
        "a.img",
    )
    cairn("convert", "-q", "-n", S0, "-f", "raw", "--target-image-opts", disk, luks("a.img"))
    qemu("compare", S0, "--image-opts", luks("a.img"), f"driver=raw,file.filename={disk}")


def test_detached_headers(cairn, qemu, disk):
    """qemu-img cannot make them (a fault of its option table) but opens them."""
    cairn(
        "create",
        "-q",
        S0,
        "-f",
        "luks",
        "-o",
        f"key-secret=s0,{QUICK},detached-header=on",
        "head.luks",
    )
    assert os.path.getsize("head.luks") == 2068480
    with open("body.raw", "wb") as out:
        out.truncate(4 << 20)
    both = luks("body.raw", header_filename="head.luks").replace(
        "header-filename", "header.filename"
    )
    cairn("convert", "-q", "-n", S0, "-f", "raw", "--target-image-opts", disk, both)
    plain = f"driver=raw,file.filename={disk}"
    qemu("compare", S0, "--image-opts", both, plain)
    cairn("compare", S0, "--image-opts", both, plain)
    assert qemu("info", "--output=json", S0, "--image-opts", both).json()["format-specific"][
        "data"
    ]["detached-header"]
    cryptsetup(
        "open",
        "--test-passphrase",
        "--type",
        "luks1",
        "--key-file",
        "pw0",
        "--header",
        "head.luks",
        "body.raw",
    )
    alone = cairn("info", "-f", "luks", "head.luks", ok=False)
    assert "LUKS payload is overlapping with the header" in alone.err


@pytest.mark.parametrize(
    "options", ["", ",preallocation=falloc", ",preallocation=full", ",preallocation=metadata"]
)
def test_create_resize_and_measure(cairn, qemu, options):
    cairn("create", "-q", S0, "-f", "luks", "-o", f"key-secret=s0,{QUICK}{options}", "a.luks", "3M")
    assert os.path.getsize("a.luks") == 2068480 + (3 << 20)
    assert (os.stat("a.luks").st_blocks * 512 > 3 << 20) == (
        options.endswith("falloc") or options.endswith("full")
    )
    cairn("resize", "-q", S0, "--image-opts", luks("a.luks"), "5M")
    assert os.path.getsize("a.luks") == 2068480 + (5 << 20)
    cairn("resize", "-q", "--shrink", S0, "--image-opts", luks("a.luks"), "1M")
    assert qemu("info", "--output=json", "a.luks").json()["virtual-size"] == 1 << 20
    words = (
        "measure",
        "--output=json",
        S0,
        "-O",
        "luks",
        "-o",
        f"key-secret=s0,{QUICK}",
        "--size",
        "12345",
    )
    assert cairn(*words).json() == qemu(*words).json()


@pytest.mark.slow
def test_what_is_refused_is_refused_with_qemus_words(ours, qemu, disk):
    with open("a.luks", "wb") as out:
        out.truncate(0)
    for options in (
        "",
        "key-secret=zz",
        "key-secret=s0,cipher-alg=foo",
        "key-secret=s0,cipher-alg=des",
        "key-secret=s0,hash-alg=foo",
        "key-secret=s0,cipher-alg=cast5-128",
        "key-secret=s0,ivgen-alg=essiv,ivgen-hash-alg=sha1",
        "key-secret=s0,cipher-mode=gcm",
        "key-secret=s0,ivgen-alg=lmk",
        "key-secret=s0,foo=1",
        "key-secret=s0,preallocation=foo",
    ):
        words = (
            "create",
            "-q",
            S0,
            "-f",
            "luks",
            *(("-o", options) if options else ()),
            "a.luks",
            "1M",
        )
        mine, other = (program(*words, ok=False) for program in (ours, qemu))
        assert (mine.code, mine.err) == (other.code, other.err)
    mine = ours(
        "create",
        "-q",
        S0,
        "-f",
        "luks",
        "-o",
        "key-secret=s0,iter-time=-1",
        "a.luks",
        "1M",
        ok=False,
    )
    assert "too large to scale: Numerical result out of range" in mine.err
    qemu("create", "-q", S0, "-f", "luks", "-o", f"key-secret=s0,{QUICK}", "b.luks", "1M")
    for words in (
        ("convert", "-O", "luks", disk, "c.luks"),
        ("convert", "-O", "raw", "b.luks", "c.raw"),
        ("check", S0, "--image-opts", luks("b.luks")),
        ("convert", S1, "-O", "raw", "--image-opts", luks("b.luks", "s1"), "c.raw"),
        ("info", "--image-opts", luks("b.luks", foo="1")),
        ("map", S0, "--image-opts", luks("b.luks")),
    ):
        mine, other = (program(*words, ok=False) for program in (ours, qemu))
        assert (mine.code, mine.err, mine.out) == (other.code, other.err, other.out)


SECRETS = [
    "secret,id=s0",
    "secret,id=s0,data=x,file=pw0",
    "secret,id=s0,file=nowhere",
    "secret,id=s0,data=x y,format=base64",
    "secret,id=s0,data=x,format=hex",
    "secret,id=k,data=0123456789abcdef0123456789abcdef --object secret,id=s0,data=x,keyid=k",
    "secret,id=k,data=0123 --object secret,id=s0,data=0123456789abcdef,keyid=k,iv=MDEyMzQ1Njc4OWFiY2RlZg==",
    "secret,id=k,data=x --object secret,id=s0,data=x,keyid=k,iv=MDEyMw==",
    "secret,id=s0,data=x,keyid=zz,iv=MDEyMw==",
    "secret,data=x",
    "secret,id=0s,data=x",
    "secret,id=s0,data=x --object secret,id=s0,data=x",
    "secret,id=s0,data=x,foo=1",
    "foo,id=s0",
    "secret_keyring,id=s0,serial=0",
    "secret_keyring,id=s0",
    "secret_keyring,id=s0,serial=123456",
]


@pytest.mark.parametrize("objects", SECRETS)
def test_bad_secrets_are_refused_with_qemus_words(ours, qemu, objects):
    words = ["create", "-q", "-f", "luks", "-o", f"key-secret=s0,{QUICK}"]
    for text in objects.split(" --object "):
        words += ["--object", text]
    mine, other = (program(*words, "a.luks", "1M", ok=False) for program in (ours, qemu))
    assert (mine.code, mine.err) == (other.code, other.err)


@pytest.mark.parametrize(
    "definition",
    [
        '{"qom-type":5,"id":"a"}',
        '{"qom-type":"secret","id":5}',
        '{"qom-type":"secret","id":"a","data":true}',
        '{"qom-type":"secret","id":"a","data":["x"]}',
        '{"qom-type":"secret","id":"a","data":"x","format":5}',
        '{"qom-type":"throttle-group","id":"a","x-iops-total":"5"}',
        '{"qom-type":"tls-creds-x509","id":"a","dir":"/","verify-peer":"on"}',
    ],
)
def test_types_of_json_objects(ours, qemu, definition):
    mine, other = (
        program("info", "--object", definition, "none.qcow2", ok=False) for program in (ours, qemu)
    )
    assert (mine.code, mine.err) == (other.code, other.err)
    assert "Invalid parameter type" in mine.err


def test_every_kind_of_secret_opens_the_same_image(cairn, ours, disk):
    cairn("convert", "-q", S0, "-O", "luks", "-o", f"key-secret=s0,{QUICK}", disk, "a.luks")
    plain = f"driver=raw,file.filename={disk}"
    key, iv = (
        "3031323334353637383961626364656630313233343536373839616263646566",
        "000102030405060708090a0b0c0d0e0f",
    )
    sealed = subprocess.run(
        ["openssl", "enc", "-aes-256-cbc", "-K", key, "-iv", iv, "-base64", "-A", "-in", "pw0"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    master = "--object=secret,id=k,file=key.b64,format=base64"
    for objects in (
        ["--object=secret,id=s0,data=correct horse"],
        ["--object=secret,id=s0,data=Y29ycmVjdCBob3JzZQ==,format=base64"],
        ['--object={"qom-type":"secret","id":"s0","data":"correct horse"}'],
        [
            master,
            f"--object=secret,id=s0,data={sealed},format=base64,keyid=k,iv=AAECAwQFBgcICQoLDA0ODw==",
        ],
    ):
        ours("compare", *objects, "--image-opts", luks("a.luks"), plain)
    name = 'json:{"driver":"luks","key-secret":"s0","file":{"driver":"file","filename":"a.luks"}}'
    ours(
        "compare", S0, name, 'json:{"driver":"raw","file":{"driver":"file","filename":"%s"}}' % disk
    )


def test_a_passphrase_on_the_command_line_is_warned_about_and_soon_gone(cairn, ours, disk):
    cairn("convert", "-q", S0, "-O", "luks", "-o", f"key-secret=s0,{QUICK}", disk, "a.luks")
    words = ["info", "--object", "secret,id=s0,data=correct horse", "--image-opts", luks("a.luks")]
    assert "warning: a secret given as data=" in cairn(*words).err
    assert ours(*words).err == ""
    job = subprocess.Popen(
        [
            CAIRN,
            "bench",
            "-q",
            "--object",
            "secret,id=s0,data=correct horse",
            "-c",
            "20000000",
            "--image-opts",
            luks("a.luks"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        shown = b"correct horse"
        until = time.monotonic() + 20
        while (b"correct horse" in shown or b"bench" not in shown) and time.monotonic() < until:
            shown = open(f"/proc/{job.pid}/cmdline", "rb").read()
        assert b"bench" in shown and b"correct horse" not in shown
    finally:
        job.kill()
        job.wait()


def test_people_are_asked_on_their_terminal(cairn, disk):
    """With a terminal and no secret: asked without echo, twice for a new image."""

    def at_terminal(answers, *words):
        child, terminal = pty.fork()
        if child == 0:
            os.execv(CAIRN, [str(CAIRN), *map(str, words)])
        seen = b""
        for answer in answers:
            while not seen.rstrip(b" ").endswith(b":"):
                seen += os.read(terminal, 4096)
            os.write(terminal, answer + b"\n")
            seen += b"|"
        try:
            while chunk := os.read(terminal, 4096):
                seen += chunk
        except OSError:
            pass
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), seen.decode()

    def shown_after_an_interrupt(*words):
        """Whether what is typed is shown again once the program has ended."""
        ours, terminal = pty.openpty()
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
        asking = subprocess.Popen(["setsid", "--ctty", CAIRN, *words], **streams)
        seen = b""
        while not seen.endswith(b": "):
            seen += os.read(ours, 4096)
        assert not termios.tcgetattr(terminal)[3] & termios.ECHO
        os.write(ours, b"half\x03")
        assert asking.wait(20) == 130
        shown = termios.tcgetattr(terminal)[3] & termios.ECHO
        os.close(ours)
        os.close(terminal)
        return shown

    words = ("convert", "-q", "-O", "luks", "-o", QUICK, disk, "a.luks")
    code, seen = at_terminal([b"correct horse", b"correct horse"], *words)
    assert code == 0 and "New passphrase for a.luks:" in seen and "correct" not in seen, seen
    code, seen = at_terminal([b"one", b"two"], *words, "--overwrite")
    assert code == 1 and "not the same" in seen and os.path.getsize("a.luks") > disk.stat().st_size
    code, seen = at_terminal([b"correct horse"], "compare", "a.luks", disk)
    assert code == 0 and "Images are identical" in seen and "correct" not in seen, seen
    cairn("compare", S0, "--image-opts", luks("a.luks"), f"driver=raw,file.filename={disk}")
    code, seen = at_terminal([b"wrong"], "compare", "a.luks", disk)
    assert code == 2 and "Invalid password" in seen
    assert shown_after_an_interrupt("compare", "a.luks", disk)
    assert (
        "Parameter 'key-secret' is required for cipher"
        in cairn("compare", "a.luks", disk, ok=False, stdin=subprocess.DEVNULL).err
    )
