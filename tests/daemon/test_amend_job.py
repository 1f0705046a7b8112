"""x-blockdev-amend: key slots of images that are open, next to qemu-storage-daemon."""
import json
import shutil

import pytest
from conftest import CAIRN
from job_disks import both, pair, run, same

SECRETS = {"s0": "first", "s1": "second", "s2": "third"}
LUKS = {"driver": "qcow2", "encrypt": {"format": "luks", "key-secret": "s0"}}
AES = {"driver": "qcow2", "encrypt": {"format": "aes", "key-secret": "s0"}}


IMAGES = {
    "locked": "-f qcow2 -o encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=10",
    "old": "-f qcow2 -o encrypt.format=aes,encrypt.key-secret=s0",
    "plain": "-f luks -o key-secret=s0,iter-time=10",
}


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory):
    """Encrypted images; making them takes qemu-img seconds each."""
    folder = tmp_path_factory.mktemp("encrypted")
    secret = f"secret,id=s0,data={SECRETS['s0']}"
    for name, words in IMAGES.items():
        run(CAIRN, "create", "-q", "--object", secret, *words.split(), folder / name, "1M")
    return folder


@pytest.fixture
def keys(both, encrypted):
    """Encrypted images besides the chain, and secrets."""
    for one in both:
        for name, data in SECRETS.items():
            one.ask("object-add", **{"qom-type": "secret", "id": name, "data": data})
        for name in IMAGES:
            shutil.copy(encrypted / name, one.path(name))
        for name, how in (("locked", LUKS), ("old", AES)):
            file = {"driver": "file", "filename": one.path(name)}
            one.ask("blockdev-add", **how, **{"node-name": name, "file": file})
            one.names.append(name)
    yield both
    for one in both:
        one.drop_nodes()
        for name in SECRETS:
            one.ask("object-del", id=name)


def amend(one, node, encrypt=None, driver="qcow2", **more):
    """The reply, what became of the job, and its end."""
    options = {"driver": driver, **({"encrypt": encrypt} if encrypt else {})}
    reply = one.ask("x-blockdev-amend", job_id="a", node_name=node, options=options, **more)
    if "error" in reply:
        return reply
    if "concluded a" not in one.said:
        one.until("concluded a")
    jobs = one.ask("query-jobs")
    answer = one.ask("job-dismiss", id="a")
    # What comes before the reply is a matter of speed.
    said = one.transcript()
    one.said.clear()
    return reply, said, jobs, answer


def slots_of(one, name):
    """Which key slots the image has in use, and that each secret opens it or not."""
    listed = one.ask("query-named-block-nodes", flat=True)["return"]
    node = next(node for node in listed if node["node-name"] == name)
    data = node["image"]["format-specific"]["data"]
    return [slot["active"] for slot in data["encrypt"]["slots"]]


ACTIVE = {"format": "luks", "state": "active"}
INACTIVE = {"format": "luks", "state": "inactive"}
STEPS = [
    ("nope", None),
    ("top", None),
    ("target", None),
    ("mid", None),
    ("top", ACTIVE | {"new-secret": "s1"}),
    ("mid", INACTIVE | {"keyslot": 1}),
    ("old", ACTIVE | {"new-secret": "s1"}),
    ("old", {"format": "qcow"}),
    ("locked", {"format": "qcow"}),
    ("locked", {"format": "aes"}),
    ("locked", ACTIVE),
    ("locked", ACTIVE | {"new-secret": "nope"}),
    ("locked", ACTIVE | {"new-secret": "s1", "old-secret": "s0"}),
    ("locked", ACTIVE | {"new-secret": "s1", "keyslot": 0}),
    ("locked", ACTIVE | {"new-secret": "s1", "keyslot": 9}),
    ("locked", ACTIVE | {"new-secret": "s1", "keyslot": -1}),
    ("locked", ACTIVE | {"new-secret": "s1", "keyslot": 3, "iter-time": 10}),
    ("locked", ACTIVE | {"new-secret": "s2", "iter-time": 10, "secret": "s1"}),
    ("locked", ACTIVE | {"new-secret": "s2", "iter-time": 10, "secret": "nope"}),
    ("locked", INACTIVE),
    ("locked", INACTIVE | {"new-secret": "s1"}),
    ("locked", INACTIVE | {"iter-time": 10, "keyslot": 0}),
    ("locked", INACTIVE | {"old-secret": "nope"}),
    ("locked", INACTIVE | {"keyslot": 5}),
    ("locked", INACTIVE | {"keyslot": 0, "old-secret": "s1"}),
    ("locked", INACTIVE | {"keyslot": 0}),
    ("locked", INACTIVE | {"old-secret": "s1"}),
    ("locked", INACTIVE | {"old-secret": "s2"}),
    ("locked", INACTIVE | {"keyslot": 1}),
]


def test_key_slots(keys):
    def steps(one):
        said = [amend(one, node, encrypt) for node, encrypt in STEPS]
        said.append(slots_of(one, "locked"))
        said.append(amend(one, "locked", INACTIVE | {"old-secret": "s2"}, force=True))
        said.append(slots_of(one, "locked"))
        return said

    results = [steps(one) for one in keys]
    for step, mine, its in zip([*STEPS, "slots", "force", "slots"], *results):
        assert mine == its, step
    # The open image still has its key, and can be given a slot again; QEMU's is lost.
    reply = amend(keys[0], "locked", ACTIVE | {"new-secret": "s1", "iter-time": 10})
    assert "error" not in reply[2]["return"][0]
    keys[0].drop_nodes()
    image = f"driver=qcow2,encrypt.key-secret=s1,file.filename={keys[0].path('locked')}"
    secret = ["--object", f"secret,id=s1,data={SECRETS['s1']}"]
    run("qemu-io", *secret, "--image-opts", "-c", "read 0 4k", image)


def test_what_is_refused(both):
    def steps(one):
        said = [amend(one, "top", driver="raw")]
        said.append(amend(one, "target", driver="raw"))
        one.ask("blockdev-add", **{"driver": "null-co", "node-name": "n"})
        said.append(amend(one, "n", driver="null-co"))
        one.ask("blockdev-del", node_name="n")
        arguments = {"node_name": "top", "options": {"driver": "qcow2"}}
        said.append(one.ask("x-blockdev-amend", **arguments))
        said.append(one.ask("x-blockdev-amend", job_id="1 a", **arguments))
        return said

    same(both, steps)


def test_luks_alone(keys):
    """Where qemu-storage-daemon ends; the image is opened by what was set, and by others."""
    ours = keys[0]
    path = ours.path("plain")
    file = {"driver": "file", "filename": path}
    node = {"driver": "luks", "node-name": "plain", "key-secret": "s0", "file": file}
    assert ours.ask("blockdev-add", **node) == {"return": {}}
    ours.names.append("plain")
    options = {"driver": "luks", "state": "active", "new-secret": "s1", "iter-time": 10}
    arguments = {"job_id": "a", "node_name": "plain", "options": options}
    assert ours.ask("x-blockdev-amend", **arguments) == {"return": {}}
    if "concluded a" not in ours.said:
        ours.until("concluded a")
    (job,) = ours.ask("query-jobs")["return"]
    assert "error" not in job, json.dumps(job)
    ours.ask("job-dismiss", id="a")
    ours.drop_nodes()
    for secret in ("s0", "s1"):
        image = f"driver=luks,key-secret={secret},file.filename={path}"
        shared = ["--object", f"secret,id={secret},data={SECRETS[secret]}"]
        run("qemu-io", *shared, "--image-opts", "-c", "read 0 4k", image)
