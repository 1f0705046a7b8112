"""Command lines of every verb of qemu-img, run by both programs in folders that are equal: what is printed, what is
returned and what the images become must be the same."""
import hashlib
import os
import re
import shlex
import shutil
import subprocess

import pytest

from conftest import CAIRN, call

# Slow: most of the time goes into starting QEMU, again and again.
pytestmark = [pytest.mark.any_engine, pytest.mark.slow]

OURS = CAIRN.parent / "compat"
SECRET = "--object secret,id=s,data=pw"
LUKS = "driver=luks,file.filename=l.luks,key-secret=s"
ENCRYPTED = "driver=qcow2,file.filename=enc.qcow2,encrypt.key-secret=s"

# Lines by verb; each begins with fresh images when the one before changed something.
LINES = {
    "": [
        "",
        "nope",
        "-x",
        "info -Z base.raw",
        "info --nope",
        "compare --nope a b",
        "-V",
        "--help",
        "info --help",
        "convert -h",
    ],
    "amend": [
        "",
        "base.qcow2",
        "-f qcow2 -o help",
        "-f raw -o help",
        "-f nope -o help",
        "-o help",
        "-o help base.qcow2",
        "-o help missing",
        "-o compat=0.10 base.qcow2",
        "-o compat=v3 v2.qcow2",
        "-o compat=foo v2.qcow2",
        "-q -o compat=0.10 base.qcow2",
        "-o lazy_refcounts=on base.qcow2",
        "-o lazy_refcounts=on v2.qcow2",
        "-o lazy_refcounts=foo base.qcow2",
        "-o nolazy_refcounts base.qcow2",
        "-o refcount_bits=1 base.qcow2",
        "-o refcount_bits=3 base.qcow2",
        "-o refcount_bits=x base.qcow2",
        "-o refcount_bits=8 v2.qcow2",
        "-o compat=0.10,refcount_bits=8 base.qcow2",
        "-o size=2M base.qcow2",
        "-o size=512k base.qcow2",
        "-o size=x base.qcow2",
        "-o backing_file=mid.qcow2 top.qcow2",
        "-o backing_fmt=qcow2 top.qcow2",
        "-o backing_file=mid.qcow2,backing_fmt=qcow2 top.qcow2",
        "-o backing_file=base.qcow2,backing_fmt=qcow2 top.qcow2",
        "-o data_file=x base.qcow2",
        "-o data_file_raw=on base.qcow2",
        "-o compat=0.10 df.qcow2",
        "-f '' -o compat=0.10 base.qcow2",
        "-o compat=0.10,refcount_bits=8 df.qcow2",
        "-o cluster_size=4k base.qcow2",
        "-o nonsense=1 base.qcow2",
        "-f raw -o compat=1.1 base.qcow2",
        "-t foo -o compat=1.1 base.qcow2",
        "-o compat=1.1 base.qcow2 base.raw",
        "-o compat=1.1",
        "-o ,compat=1.1 base.qcow2",
        "-o '' base.qcow2",
        "--image-opts -f qcow2 -o compat=0.10 driver=qcow2,file.filename=base.qcow2",
        f"{SECRET} --image-opts -o state=inactive,old-secret=s {LUKS}",
        f"{SECRET} --image-opts -o state=inactive {LUKS}",
        f"{SECRET} --image-opts -o new-secret=s {LUKS}",
        f"{SECRET} --image-opts -o encrypt.state=inactive,encrypt.old-secret=s {ENCRYPTED}",
    ],
    "bench": [
        "",
        "missing",
        "-c 10 base.raw",
        "-c 10 -w -f raw base.raw",
        "-c 10 -w -f qcow2 --flush-interval=2 -d 1 base.qcow2",
        "-c 10 -w -f qcow2 --flush-interval=5 -d 2 --no-drain base.qcow2",
        "-c 10 -w --flush-interval=2 -d 4 base.qcow2",
        "--flush-interval=2 base.raw",
        "-c 5 -i foo base.raw",
        "-c 5 -i native base.raw",
        "-c 5 -n base.raw",
        "-c 5 -t foo base.raw",
        "-c 5 -S 0 base.raw",
        "-c 5 -o 2M base.raw",
        "-c 5 -s 2M base.raw",
        "-c 5 empty",
        "-c 5 --pattern=0x41 -w -f raw base.raw",
        "-c 5 -U -w base.raw",
        "-f nope base.raw",
        "-c 5 --image-opts -f qcow2 driver=qcow2,file.filename=base.qcow2",
    ],
    "bitmap": [
        "bm.qcow2 b0",
        "--add bm.qcow2",
        "--add bm.qcow2 b0",
        "--add -g 1000 bm.qcow2 b9",
        "--add bm.qcow2 ''",
        "--remove -g 64k bm.qcow2 b0",
        "--remove bm.qcow2 b0",
        "--remove bm.qcow2 zz",
        "--clear bm.qcow2 b0",
        "--enable bm.qcow2 b1",
        "--disable bm.qcow2 b0",
        "--merge b0 bm.qcow2 b1",
        "--merge zz bm.qcow2 b0",
        "--add --merge b0 -b bm.qcow2 -F qcow2 base.qcow2 n",
        "--add --merge b0 -b bm.qcow2 -F qcow2 small.qcow2 n",
        "--add -b bm.qcow2 base.qcow2 n",
        "--add -F qcow2 base.qcow2 n",
        "--add -f raw base.raw n",
        "--add v2.qcow2 n",
        "--add lost.qcow2 n",
    ],
    "check": [
        "",
        "missing",
        "base.raw",
        "base.qcow2",
        "--output=json base.qcow2",
        "--output=json leak.qcow2",
        "-q leak.qcow2",
        "-f '' base.qcow2",
        "-r leaks leak.qcow2",
        "-r all --output=json leak.qcow2",
        "corrupt.qcow2",
        "-r leaks corrupt.qcow2",
        "-r all corrupt.qcow2",
        "-r all -U base.qcow2",
        "-r all base.raw",
        "-r all a.vmdk",
        "a.vmdk",
        "a.vdi",
        "a.vhdx",
        "--output=json a.vdi",
        "-f qcow2 base.raw",
        "-f nope base.qcow2",
        "-T foo base.qcow2",
        "base.qcow2 mid.qcow2",
        "lost.qcow2",
        "--image-opts base.qcow2",
        "--image-opts driver=qcow2",
        "--image-opts driver=qcow2,file.filename=base.qcow2,nonsense=1",
        "--image-opts driver=qcow2,file.filename=base.qcow2,file.nonsense=1",
    ],
    "compare": [
        "base.raw",
        "base.raw base.qcow2 comp.qcow2",
        "base.raw base.qcow2",
        "base.raw top.qcow2",
        "base.raw snap.qcow2",
        "-f '' base.raw base.qcow2",
        "-F '' base.raw base.qcow2",
        "big.qcow2 snap.qcow2",
        "-q base.raw top.qcow2",
        "base.raw big.qcow2",
        "-s base.raw big.qcow2",
        "-s base.raw base.qcow2",
        "-s base.qcow2 base.qcow2",
        "-s base.qcow2 comp.qcow2",
        "missing base.raw",
        "base.raw missing",
        "-f qcow2 base.raw base.qcow2",
        "-F nope base.raw base.qcow2",
        "-T foo base.raw base.qcow2",
        "empty base.raw",
        "empty empty",
        "--image-opts -f raw driver=raw,file.filename=base.raw driver=raw,file.filename=base.raw",
        "l.luks base.raw",
        "lost.qcow2 base.raw",
        "--object secret,data=x base.raw base.qcow2",
        "--object nonsense,id=x base.raw base.qcow2",
        "--object secret,help",
        "--strict base.raw base.raw",
    ],
    "commit": [
        "",
        "base.qcow2",
        "base.raw",
        "missing",
        "mid.qcow2",
        "top.qcow2",
        "-d top.qcow2",
        "-q top.qcow2",
        "-b base.qcow2 top.qcow2",
        "-b ./base.qcow2 top.qcow2",
        "-b base.raw base.qcow2",
        "-b nope.qcow2 top.qcow2",
        "-b '' top.qcow2",
        "big.qcow2",
        "lost.qcow2",
        "-t foo top.qcow2",
        "top.qcow2 mid.qcow2",
        "--image-opts driver=qcow2,file.filename=top.qcow2",
        "--image-opts driver=qcow2,lazy-refcounts=on,file.filename=top.qcow2,file.locking=off",
    ],
    "convert": [
        "",
        "base.raw",
        "base.raw out",
        "-O qcow2 base.raw out",
        "-O qcow2 missing out",
        "-O nope base.raw out",
        "-f qcow2 base.raw out",
        "-O qcow2 base.qcow2 base.qcow2",
        "-c -O raw base.raw out",
        "-C -c -O qcow2 base.raw out",
        "-C -S 4k -O qcow2 base.raw out",
        "-n -O qcow2 base.raw out",
        "-n -O qcow2 base.raw small.qcow2",
        "-n -o cluster_size=4k base.raw snap.qcow2",
        "--target-is-zero -O qcow2 base.raw out",
        "--target-image-opts base.raw driver=qcow2,file.filename=out",
        "-n --target-image-opts -O qcow2 base.raw driver=qcow2,file.filename=snap.qcow2",
        "-n --target-image-opts base.raw snap.qcow2",
        "-O qcow2 -o help out",
        "-O qcow2 -o help base.raw out",
        "-O vmdk -o help",
        "-O qcow2 -o nonsense=1 base.raw out",
        "-O qcow2 -o cluster_size=1000 base.raw out",
        "-c -O qcow2 -o encryption=on base.raw out",
        "-O qcow2 -o encrypt.format=luks base.raw out",
        "-O luks base.raw out",
        "-O qcow2 -o , base.raw out",
        "-O raw odd.raw odd.raw out",
        "-O qcow2 -B base.qcow2 -F qcow2 top.qcow2 out",
        "-O qcow2 -B base.qcow2 top.qcow2 out",
        "-O raw -B base.qcow2 -F qcow2 top.qcow2 out",
        "-O qcow2 -B base.qcow2 -F qcow2 top.qcow2 base.raw out",
        "-S 1000 -O raw base.raw out",
        "-t foo base.raw out",
        "-T foo base.raw out",
        "-l one -O qcow2 snap.qcow2 out",
        "-l 2 -O qcow2 snap.qcow2 out",
        "-l snapshot.id=1,snapshot.name=two -O qcow2 snap.qcow2 out",
        "-l nope -O qcow2 snap.qcow2 out",
        "-l one -O qcow2 base.raw out",
        "--bitmaps -O qcow2 bm.qcow2 out",
        "--bitmaps -O qcow2 base.raw out",
        "--skip-broken-bitmaps -O qcow2 bm.qcow2 out",
        "--image-opts -f raw -O qcow2 driver=raw,file.filename=base.raw out",
        "--image-opts -O qcow2 base.raw out",
        "-O qcow2 base.raw dir/none/out",
        "-O qcow2 lost.qcow2 out",
        "-O qcow2 enc.qcow2 out",
        "-O raw empty out",
        "-l '' -O qcow2 snap.qcow2 out",
        "-O '' base.raw out",
        "-f '' base.raw out",
        "-O qcow2 -B missing -F raw base.raw out",
        "-O qcow2 -B missing -F nope base.raw out",
        "--bitmaps -O qcow2 -o compat=0.10 bm.qcow2 out",
        "-c -O qcow2 -o data_file=new base.raw out",
        "-l snapshot.name=nope base.raw base.raw out",
        "-O qcow2 --image-opts driver=raw,read-only,file.filename=base.raw out",
        "-O qcow2 -o data_file_raw=on base.raw out",
        "-O vdi base.raw out",
    ],
    "create": [
        "",
        "new",
        "new 1M extra",
        "-f nope new 1M",
        "-f qcow2 new",
        "-f qcow2 new 0",
        "-f qcow2 new -1",
        "-f qcow2 new 1.5k",
        "-f raw new 1000",
        "-f qcow2 new 16E",
        "-f qcow2 -o help new",
        "-f qcow2 -o help nope:new",
        "-f qcow2 -o size=1M new 1M",
        "-f qcow2 -o size=x new",
        "-f qcow2 -b base.qcow2 -F qcow2 new",
        "-f qcow2 -b base.qcow2 new",
        "-f qcow2 -b missing -F qcow2 new",
        "-f qcow2 -u -b missing -F qcow2 new 1M",
        "-f qcow2 -u -b missing -F qcow2 new",
        "-f qcow2 -b '' -F qcow2 new 1M",
        "-f qcow2 -b base.qcow2 -F nope new",
        "-f qcow2 -b base.raw -F qcow2 new",
        "-f qcow2 -F qcow2 new 1M",
        "-f qcow2 -F nope new 1M",
        "-f qcow2 -b new -F qcow2 new",
        "-f raw -b base.raw new",
        "-f raw -F raw new 1M",
        "-f qcow2 -o compat=foo new 1M",
        "-f qcow2 -o cluster_size=x new 1M",
        "-f qcow2 -o preallocation=foo new 1M",
        "-f qcow2 -o preallocation=metadata -b base.qcow2 -F qcow2 new",
        "-f qcow2 -o refcount_bits=8,compat=0.10 new 1M",
        "-f qcow2 -o refcount_bits=99999999999999999999 new 1M",
        "-f qcow2 -o extended_l2=on,cluster_size=4k new 1M",
        "-f qcow2 -o compression_type=zstd,compat=0.10 new 1M",
        "-f qcow2 -o data_file_raw=on new 1M",
        "-f qcow2 -o encryption=on,encrypt.format=luks new 1M",
        "-f qcow2 -o encrypt.format=luks,encrypt.key-secret=zz new 1M",
        "-f luks new 1M",
        "-f raw -o preallocation=foo new 1M",
        "-f raw -o extent_size_hint=2M new 1M",
        "-f raw -o nocow=foo new 1M",
        "-f '' new 1M",
        "-f raw -o preallocation=off,extent_size_hint=0,nocow=on new 1M",
        "-f qcow2 dir 1M",
        "-f vmdk -o adapter_type=foo new 1M",
        "-f vpc new 10M",
        "-f qcow2 dir/none/x 1M",
        "-f qcow2 nope:x 1M",
        "-f raw nbd://127.0.0.1:1/x 1M",
        "-f raw ./a:b 1M",
        "--object secret new 1M",
        "--object secret,id=1x,data=y new 1M",
        "--object secret,id=s new 1M",
        "--object secret,id=s,file=missing new 1M",
        "--object secret,id=s,data=x --object secret,id=s,data=y new 1M",
        "--object secret,id=s,data=x,foo=1 new 1M",
        "--object secret,id=s,data='!!',format=base64 new 1M",
        "--object throttle-group,help",
        "--object id=x new 1M",
    ],
    "dd": [
        "",
        "if=base.raw",
        "if=base.raw of=out bs=64k count=2 skip=1",
        "if=base.raw of=out bs=64k skip=100",
        "if=base.raw of=out bs=0",
        "if=base.raw of=out bs=3G",
        "if=base.raw of=out count=-1",
        "if=base.raw of=out foo=1",
        "if=base.raw of=out foo",
        "-O qcow2 if=odd.raw of=out",
        "-O nope if=base.raw of=out",
        "if=missing of=out",
        "if= of=out",
        "if=empty of=out",
        "if=l.luks of=out",
        f"{SECRET} --image-opts if={LUKS} of=out",
        "--image-opts -f raw if=driver=raw,file.filename=base.raw of=out",
    ],
    "info": [
        "",
        "missing",
        "''",
        "base.raw base.qcow2",
        "base.raw",
        "top.qcow2",
        "snap.qcow2",
        "bm.qcow2",
        "df.qcow2",
        "l.luks",
        "enc.qcow2",
        "a.vmdk",
        "odd.raw",
        "--output=json snap.qcow2",
        "--output=json enc.qcow2",
        "--output=json a.vhdx",
        "--backing-chain --output=json top.qcow2",
        "-b lost.qcow2",
        "-f nope base.raw",
        "--image-opts filename=base.qcow2",
        "--image-opts driver=nope,file.filename=base.qcow2",
        "json:{} ",
        '\'json:{"driver":"qcow2"\'',
        "--image-opts driver=raw,offset=64k,file.filename=base.raw",
        "--image-opts driver=raw,offset=1000,file.filename=base.raw",
        "--image-opts driver=qcow2,file.filename=top.qcow2,lazy-refcounts=on,overlap-check=all,l2-cache-size=1M",
        "--image-opts driver=qcow2,file.filename=top.qcow2,file.locking=off,file.aio=threads",
        "-U --image-opts file.filename=top.qcow2,force-share=off",
        "--image-opts driver=qcow2,file.filename=top.qcow2,detect-zeroes=unmap",
        "--image-opts driver=qcow2,file.filename=top.qcow2,backing.driver=raw,backing.file.filename=base.raw",
        "--image-opts driver=qcow2,file.filename=top.qcow2,backing.driver=raw",
        "--image-opts driver=qcow2,file.filename=top.qcow2,backing=",
        "--image-opts driver=qcow2,file.filename=top.qcow2,lazy-refcounts",
        "-f '' base.raw",
        "--image-opts driver=qcow2,nofoo,file.filename=top.qcow2",
        '\'json:{"driver":"qcow2","file.filename":"top.qcow2","backing":""}\'',
        "--image-opts driver=,file.filename=top.qcow2",
        '\'json:{"driver":"qcow2","file":"nonode"}\'',
        '\'json:{"driver":"raw","file":{"driver":"file","filename":"base.raw"},"size":65536}\'',
        "foo:bar",
        "file:base.raw",
        "null-co://foo",
        "nbd://127.0.0.1:1/x",
        "--object throttle-group,help",
        "--object secret,id=s base.raw",
    ],
    "map": [
        "missing",
        "base.raw",
        "top.qcow2",
        "comp.qcow2",
        "l.luks",
        "empty",
        "--output=json top.qcow2",
        "--output=json a.vmdk",
        "--output=json empty",
        "-s 64k -l 64k --output=json top.qcow2",
        "-s 2M --output=json base.raw",
        "-s 1M --output=json base.raw",
        "-l 0 base.raw",
        "-s -1 base.raw",
        "-f nope base.qcow2",
        f"{SECRET} --image-opts {LUKS}",
        "--output=json --image-opts driver=raw,offset=64k,size=64k,file.filename=base.raw",
    ],
    "measure": [
        "",
        "base.raw",
        "-O qcow2 top.qcow2",
        "-O qcow2 --output=json bm.qcow2",
        "-O luks --size 1M",
        f"{SECRET} -O luks -o key-secret=s,iter-time=10 --size 1M",
        "-O qcow2 -o encrypt.format=aes --size 1M",
        "-O qcow2 -o encrypt.format=luks --size 1M",
        "-O vmdk --size 1M",
        "-O nope --size 1M",
        "--size -1",
        "-O qcow2 -o cluster_size=512 --size 1G",
        "-O qcow2 -o nonsense=1 --size 1M",
        "-O raw -o preallocation=full --size 1M",
        "-l one --size 1M",
        "--size 1M base.raw",
        "base.raw base.qcow2",
        "-O qcow2 -l one snap.qcow2",
        "-O qcow2 -l nope snap.qcow2",
        "-O qcow2 lost.qcow2",
    ],
    "rebase": [
        "",
        "top.qcow2",
        "-b base.qcow2 -F qcow2 top.qcow2",
        "-b mid.qcow2 -F qcow2 top.qcow2",
        "-b '' top.qcow2",
        "-b base.raw -F raw top.qcow2",
        "-b missing -F qcow2 top.qcow2",
        "-b base.raw -F qcow2 top.qcow2",
        "-b base.qcow2 -F nope top.qcow2",
        "-u -b missing -F qcow2 top.qcow2",
        "-u top.qcow2",
        "-u -b '' base.raw",
        "-b base.qcow2 -F qcow2 lost.qcow2",
        "-c -b '' base.raw",
        "-t foo -b base.qcow2 -F qcow2 top.qcow2",
        "-b top.qcow2 -F qcow2 mid.qcow2",
        "-b base.qcow2 -F qcow2 missing",
        "-b snap.qcow2 -F qcow2 top.qcow2",
    ],
    "resize": [
        "",
        "base.raw",
        "base.raw 2M",
        "-f raw base.raw +1M",
        "-f raw base.raw -512k",
        "-f raw --shrink base.raw -512k",
        "-f raw --shrink base.raw -2M",
        "-f raw base.raw 0",
        "-f raw base.raw x",
        "-f raw base.raw 9E",
        "-f raw base.raw +-1",
        "-f raw --preallocation=metadata base.raw 2M",
        "-f raw --preallocation=foo base.raw 2M",
        "-f raw --preallocation=full base.raw 1M",
        "base.qcow2 1000",
        "--shrink base.qcow2 512k",
        "--preallocation=falloc base.qcow2 2M",
        "top.qcow2 2M",
        "snap.qcow2 2M",
        "bm.qcow2 2M",
        "a.vmdk 2M",
        "lost.qcow2 2M",
        "missing 2M",
        "enc.qcow2 2M",
        "base.raw 2M extra",
        "-q base.qcow2 2M",
        "null-co:// 2M",
    ],
    "snapshot": [
        "",
        "snap.qcow2",
        "-l snap.qcow2",
        "-l base.raw",
        "-l missing",
        "-c three snap.qcow2",
        "-c x -U snap.qcow2",
        "-c x df.qcow2",
        "-a x bm.qcow2",
        "-a one snap.qcow2",
        "-a 2 snap.qcow2",
        "-a nope snap.qcow2",
        "-a x base.qcow2",
        "-d one snap.qcow2",
        "-d 1 snap.qcow2",
        "-d nope snap.qcow2",
        "-d x base.qcow2",
        "-l -c x snap.qcow2",
        "-l -l snap.qcow2",
        "-c x -c y snap.qcow2",
        "-l snap.qcow2 base.qcow2",
        "--image-opts -l snap.qcow2",
    ],
}
# What the other tool's build prints in words of a later release: not compared.
LATER = ("-V", "--help", "-h")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pristine")

    def img(*words):
        call("qemu-img", *words, cwd=folder)

    def io(image, *commands):
        call(
            "qemu-io",
            "-f",
            "qcow2",
            *[word for command in commands for word in ("-c", command)],
            image,
            cwd=folder,
        )

    (folder / "base.raw").write_bytes(
        b"A" * 65536
        + bytes(131072)
        + b"B" * 5000
        + bytes(98392)
        + b"C" * 1000
        + bytes((1 << 20) - 301000)
    )
    (folder / "odd.raw").write_bytes(b"x" * 1000)
    (folder / "empty").write_bytes(b"")
    (folder / "dir").mkdir()
    for target, words in {
        "base.qcow2": ["-O", "qcow2"],
        "comp.qcow2": ["-c", "-O", "qcow2"],
        **{
            f"a.{fmt}": ["-O", fmt]
            for fmt in ("vmdk", "vdi", "vhdx", "vpc", "qed", "qcow", "parallels")
        },
    }.items():
        img("convert", *words, "base.raw", target)
    for name, backing in (("mid", "base"), ("top", "mid"), ("lost", "nowhere")):
        img(
            "create",
            "-q",
            "-f",
            "qcow2",
            "-u",
            "-b",
            f"{backing}.qcow2",
            "-F",
            "qcow2",
            f"{name}.qcow2",
            "1M",
        )
    img("create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "big.qcow2", "2M")
    for name, options, size in (
        ("snap", "", "1M"),
        ("bm", "", "1M"),
        ("v2", "compat=0.10", "1M"),
        ("small", "", "64k"),
        ("df", "data_file=df.raw", "1M"),
    ):
        img(
            "create",
            "-q",
            "-f",
            "qcow2",
            *(["-o", options] if options else []),
            f"{name}.qcow2",
            size,
        )
    for name, commands in {
        "mid": ["write -P 1 64k 8k"],
        "top": ["write -P 2 128k 8k", "write -z 0 64k"],
        "big": ["write -P 3 1536k 8k"],
        "snap": ["write -P 5 0 64k"],
        "v2": ["write 0 64k"],
        "df": ["write -P 7 0 1M"],
    }.items():
        io(f"{name}.qcow2", *commands)
    for name in ("one", "two", "2"):
        img("snapshot", "-c", name, "snap.qcow2")
    io("snap.qcow2", "write -P 6 0 64k")
    img("bitmap", "--add", "bm.qcow2", "b0")
    img("bitmap", "--add", "--disable", "-g", "4k", "bm.qcow2", "b1")
    io("bm.qcow2", "write -P 1 0 64k")
    secret = ["--object", "secret,id=s,data=pw"]
    img("create", "-q", *secret, "-f", "luks", "-o", "key-secret=s,iter-time=10", "l.luks", "1M")
    img(
        "create",
        "-q",
        *secret,
        "-f",
        "qcow2",
        "-o",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
        "enc.qcow2",
        "1M",
    )
    leak = bytearray((folder / "base.qcow2").read_bytes())
    counts = int.from_bytes(leak[0x10000:0x10008], "big")
    assert leak[counts + 10 : counts + 12] == b"\0\1"
    (folder / "corrupt.qcow2").write_bytes(leak[: counts + 10] + b"\0\0" + leak[counts + 12 :])
    leak[counts + 18 : counts + 20] = b"\0\1"
    (folder / "leak.qcow2").write_bytes(leak + bytes(131072))
    subprocess.run(["sync", "-f", folder], check=True)
    return folder


def plain(text):
    """Without times and names of nodes, and with the words of QEMU 10.0 where the tool at hand has later ones."""
    for pattern, instead in (
        (r"qemu-img \w+: ", "qemu-img: "),
        (r"Try 'qemu-img( \w+)? --help' for more info(rmation)?", "(help)"),
        (r"#block\d+", "#block"),
        (
            r"unrecognized option '--?(\w[\w-]*)'|invalid option -- '(\w)'",
            lambda found: "no option " + (found[1] or found[2]),
        ),
        # QEMU says nothing of this.
        (r"qemu-img: warning: the VHD disk grows .*\n", ""),
        (r"completed in [\d.]+ seconds", "completed in TIME seconds"),
        (r"(?m)^ *disk size: .*\n", ""),
        (r'"actual-size": \d+', ""),
        (r"\d\d\d\d-\d\d-\d\d \d\d:\d\d:\d\d", "DATE"),
        (
            r"(Invalid [\w ]+ specified)[.:].*(\n.*megabytes.*exabytes\.)?(\n.*You may use k.*)?",
            r"\1",
        ),
    ):
        text = re.sub(pattern, instead, text)
    return text


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).digest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def content(path):
    """What an image holds: where clusters lie, and times, may differ."""
    told = call("qemu-img", "info", "--output=json", path.name, cwd=path.parent, ok=False)
    if told.code:
        return told.err
    info = told.json()
    kept = {
        key: info.get(key)
        for key in (
            "virtual-size",
            "format",
            "backing-filename",
            "backing-filename-format",
            "cluster-size",
            "encrypted",
            "dirty-flag",
        )
    }
    kept["snapshots"] = [(one["id"], one["name"]) for one in info.get("snapshots", [])]
    if info["format"] != "vmdk":
        kept["specific"] = info.get("format-specific")
    return kept


def compare_images(name, mine, theirs):
    assert content(mine / name) == content(theirs / name), name
    if "encrypt" in str(content(mine / name)) or name.endswith(".luks"):
        return
    done = call("qemu-img", "compare", mine / name, theirs / name, ok=False)
    assert done.code == 0 or (name == "lost.qcow2" and "nowhere" in done.err), (
        name,
        done.out,
        done.err,
    )
    assert (
        call("qemu-img", "check", mine / name, ok=False).code
        == call("qemu-img", "check", theirs / name, ok=False).code
    ), name


@pytest.mark.parametrize("verb", LINES, ids=lambda verb: verb or "program")
def test_as_qemu_img(pristine, tmp_path, verb):
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    clean = digests(pristine)

    def fresh():
        for folder in (mine, theirs):
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run(["cp", "-a", "--reflink=auto", pristine, folder], check=True)

    fresh()
    wrong = []
    for line in LINES[verb]:
        words = ([verb] if verb else []) + shlex.split(line)
        results = []
        for program, folder in ((OURS / "qemu-img", mine), ("/usr/bin/qemu-img", theirs)):
            done = subprocess.run(
                ["qemu-img", *words],
                executable=program,
                cwd=folder,
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                timeout=30,
            )
            results.append((done.returncode, plain(done.stdout), plain(done.stderr)))
        if words and words[-1] in LATER:
            results = [(code, bool(out), err) for code, out, err in results]
        if results[0] != results[1]:
            wrong.append((" ".join(words), *results))
        ours, other = digests(mine), digests(theirs)
        if ours != clean or other != clean:
            try:
                assert ours.keys() == other.keys() or (
                    results[0][0] == 1 and not ours.keys() - other.keys()
                ), (ours.keys() ^ other.keys())
                for name in ours.keys() & other.keys():
                    if ours[name] != other[name]:
                        compare_images(name, mine, theirs)
            except AssertionError as error:
                wrong.append((" ".join(words), str(error)[:600]))
            fresh()
    assert not wrong, "\n".join(map(str, wrong))
