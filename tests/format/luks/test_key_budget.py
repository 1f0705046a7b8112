"""What deriving the key of an encrypted image may cost."""
import json
import hashlib
import struct
import time

import pytest

from conftest import call

pytestmark = pytest.mark.any_engine

SECRET = "--object=secret,id=s0,file=pw"


@pytest.fixture
def image(folder):
    (folder / "pw").write_text("horse")

    def make(kind, change):
        with open("a.img", "wb") as out:
            out.truncate(24 << 20)
        words = (
            ["--pbkdf-force-iterations", "4", "--pbkdf-memory", "64"]
            if kind == "luks2"
            else ["--pbkdf-force-iterations", "1000"]
        )
        call("cryptsetup", "luksFormat", "-q", "--type", kind, *words, "--key-file", "pw", "a.img")
        with open("a.img", "r+b") as file:
            data = bytearray(file.read(4 << 20))
            if kind == "luks1":
                struct.pack_into(">I", data, 208 + 4, change)
            else:
                for at in (0, struct.unpack_from(">Q", data, 8)[0]):
                    size = struct.unpack_from(">Q", data, at + 8)[0]
                    area = data[at + 4096 : at + size]
                    text = json.loads(area[: area.index(0)])
                    for slot in text["keyslots"].values():
                        slot["kdf"].update(change)
                    encoded = json.dumps(text).encode()
                    data[at + 4096 : at + size] = encoded + bytes(size - 4096 - len(encoded))
                    data[at + 448 : at + 512] = bytes(64)
                    data[at + 448 : at + 480] = hashlib.sha256(data[at : at + size]).digest()
            file.seek(0)
            file.write(data)
        return "driver=luks,key-secret=s0,file.filename=a.img"

    return make


def refused(cairn, image, *words):
    begin = time.monotonic()
    told = cairn("hash", SECRET, *words, "--image-opts", image, ok=False)
    assert told.code == 1 and time.monotonic() - begin < 20
    return told.err


def test_argon2_with_much_memory(cairn, image):
    name = image("luks2", {"memory": 4 << 20})
    err = refused(cairn, name)
    assert "Keyslot 0 asks for 4 GiB of memory" in err and "--key-budget memory=4096M" in err


def test_the_limit_of_memory_is_an_option(cairn, image):
    name = image("luks2", {"memory": 1024})
    err = refused(cairn, name, "--key-budget", "memory=512k")
    assert "1 MiB of memory" in err
    # With enough of it the passphrase is tried; the changed slot does not take it.
    assert "Invalid password" in refused(cairn, name, "--key-budget", "memory=1M")


def test_argon2_with_many_passes(cairn, image):
    err = refused(cairn, image("luks2", {"memory": 1 << 20, "time": 10000}))
    assert "10000 passes over 1 GiB" in err and "--key-budget time=" in err


def test_pbkdf2_for_hours(cairn, image):
    err = refused(cairn, image("luks1", 0xFFFFFFFF))
    assert "Keyslot 0 asks for 4294967295 iterations" in err and "--key-budget time=" in err


def test_unknown_words_are_refused(cairn, image):
    assert "memory and time are known" in refused(
        cairn, image("luks1", 1000), "--key-budget", "speed=1"
    )
