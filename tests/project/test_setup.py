"""The launchers on machines that lack something, and the lists of packages that they install."""
import ast
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.any_engine

# What the launchers call besides apt-get.
TOOLS = (
    "bash",
    "cat",
    "chmod",
    "cut",
    "date",
    "dirname",
    "env",
    "find",
    "flock",
    "grep",
    "mkdir",
    "mv",
    "readlink",
    "rm",
    "sh",
    "sleep",
    "tail",
    "touch",
)
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")

CMAKE = "#!/bin/bash\nmkdir -p build/release && touch build/release/build.ninja\n"
NINJA = """#!/bin/bash
echo called >>"$2/../calls"
for i in 1 2 3 4 5; do echo "[$i/5] Building CXX object $i"; done
printf '#!/bin/bash\\necho built "$@"\\n' >"$2/cairn"
chmod +x "$2/cairn"
"""
INSTALLED = "#!/bin/bash\necho installed 1.0~bpo12\n"
MISSING = "#!/bin/bash\nexit 1\n"


class Machine:
    """A checkout with the launchers, and a PATH with nothing but the programs that a test wants."""

    def __init__(self, folder):
        self.top, self.bin = folder / "checkout", folder / "bin"
        self.bin.mkdir()
        for name in TOOLS:
            (self.bin / name).symlink_to(shutil.which(name))
        (self.top / "tools").mkdir(parents=True)
        for name in ("cairn", "test", "tools/setup.sh", "CMakeLists.txt"):
            shutil.copy(TOP / name, self.top / name)
        for name in ("src", "cmake"):
            (self.top / name).mkdir()
        for path in (folder, self.top, self.bin):
            path.chmod(0o755)
        self.put("cmake", CMAKE)
        self.put("ninja", NINJA)
        self.put("dpkg-query", INSTALLED)
        self.put("apt-get", "#!/bin/bash\nexit 0\n")

    def put(self, name, text):
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def start(self, *words, prefix=()):
        command = [shutil.which(prefix[0]), *prefix[1:]] if prefix else []
        return subprocess.Popen(
            [*command, str(self.top / "cairn"), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": str(self.bin), "TMPDIR": "/tmp"},
            start_new_session=True,
        )

    def run(self, *words, prefix=()):
        process = self.start(*words, prefix=prefix)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err


@pytest.fixture
def machine(tmp_path):
    # Directories above tmp_path are closed to other users.
    folder = Path(
        subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip()
    )
    yield Machine(folder)
    shutil.rmtree(folder)


def test_first_run_builds_with_progress_and_later_runs_start_at_once(machine):
    code, out, err = machine.run("info", "a b")
    assert (code, out) == (0, "built info a b\n"), err
    assert re.findall(r"Building Cairn: (\d+) %, \d+:\d\d", err) == ["20", "40", "60", "80", "100"]
    code, out, err = machine.run("info")
    assert (code, out, err) == (0, "built info\n", "")
    time.sleep(0.01)
    (machine.top / "src" / "new.cc").write_text("")
    assert machine.run()[0] == 0
    assert (machine.top / "build" / "calls").read_text() == "called\n" * 2


def test_failed_build_names_its_log(machine):
    machine.put("ninja", "#!/bin/bash\necho '[1/2] Building'\necho 'x.cc:1: error: no'\nexit 1\n")
    code, out, err = machine.run("info")
    assert code == 1 and out == ""
    assert "x.cc:1: error: no" in err and f"{machine.top}/build/release.log" in err


def test_interrupt_says_how_to_go_on(machine):
    # A shell could lose the signal between two of its commands.
    machine.put(
        "ninja",
        "#!/usr/bin/python3\nimport signal, time\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        "print('[1/2] Building', flush=True)\ntime.sleep(60)\n",
    )
    process = machine.start("info")
    log = machine.top / "build" / "release.log"
    until = time.monotonic() + 30
    while not (log.exists() and "[1/2]" in log.read_text()) and time.monotonic() < until:
        time.sleep(0.02)
    begin = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    err = process.communicate(timeout=30)[1]
    assert process.returncode == 130 and "Run the command again to go on" in err
    assert time.monotonic() - begin < 10


def test_two_first_runs_wait_for_each_other(machine):
    machine.put("ninja", NINJA.replace("for i", "sleep 1; for i"))
    first, second = machine.start("one"), machine.start("two")
    ends = [process.communicate(timeout=60) for process in (first, second)]
    assert [end[0] for end in ends] == ["built one\n", "built two\n"]
    assert sum("waiting for it" in end[1] for end in ends) == 1
    assert (machine.top / "build" / "calls").read_text() == "called\n"


def test_system_that_is_not_debian(machine):
    (machine.bin / "apt-get").unlink()
    code, _, err = machine.run("info")
    assert code == 1 and "not Debian" in err and "g++-12" in err and "CAIRN_NO_SETUP=1" in err


def test_neither_root_nor_sudo(machine):
    machine.put("dpkg-query", MISSING)
    for path in (machine.top, machine.top / "tools"):
        path.chmod(0o777)
    code, _, err = machine.run("info", prefix=NOBODY)
    assert code == 1 and "root or sudo" in err and re.search("apt-get install .*g[+][+]-12", err)


def test_no_network(machine):
    machine.put("dpkg-query", MISSING)
    machine.put("apt-get", "#!/bin/bash\necho 'Err:1 Temporary failure resolving' >&2\nexit 100\n")
    code, _, err = machine.run("info")
    assert code == 1 and "there is no network" in err and "g++-12" in err


def test_checkout_that_cannot_be_written(machine):
    code, _, err = machine.run("info", prefix=NOBODY)
    assert code == 1 and "cannot be written to" in err and str(machine.top / "build") in err


def test_built_checkout_may_be_read_only(machine):
    assert machine.run()[0] == 0
    assert machine.run("info", prefix=NOBODY) == (0, "built info\n", "")


def test_each_list_of_packages_has_one_assignment():
    text = (TOP / "tools/setup.sh").read_text()
    for name in ("BUILD_PACKAGES", "TEST_PACKAGES", "TEST_BACKPORTS"):
        assert len(re.findall(rf"^\s*{name}\+?=", text, re.M)) == 1


def listed_packages():
    script = 'source tools/setup.sh; printf "%s\\n" "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}" "${TEST_BACKPORTS[@]}"'
    return set(
        subprocess.run(
            ["bash", "-c", script], cwd=TOP, capture_output=True, text=True, check=True
        ).stdout.split()
    )


def installed_packages():
    """For each installed package the names in its dependencies, and those that every system has."""
    form = "${Package}\t${Essential}\t${Priority}\t${Pre-Depends}, ${Depends}\t${Provides}\n"
    needs, always, provides = {}, set(), {}
    for line in subprocess.run(
        ["dpkg-query", "-W", "-f", form], capture_output=True, text=True, check=True
    ).stdout.splitlines():
        name, essential, priority, depends, provided = line.split("\t")
        needs[name] = set(re.findall(r"(?:^|[,|])\s*([a-z0-9][a-z0-9+.-]*)", depends))
        for other in re.findall(r"(?:^|,)\s*([a-z0-9][a-z0-9+.-]*)", provided):
            provides.setdefault(other, set()).add(name)
        if essential == "yes" or priority == "required":
            always.add(name)
    return needs, always, provides


def programs_of_tests():
    """The first words of all lists in the tests that are programs of the system."""
    found = {}
    for path in (TOP / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            word = node.elts[0] if isinstance(node, ast.List) and node.elts else None
            if (
                isinstance(node, ast.Call)
                and node.args
                and getattr(node.func, "attr", "") == "which"
            ):
                word = node.args[0]
            # "write" is a command of `cairn io` in the tests, "file" a driver, "node" a word of `cairn ctl`.
            if (
                isinstance(word, ast.Constant)
                and isinstance(word.value, str)
                and word.value not in ("write", "file", "node")
            ):
                program = shutil.which(word.value)
                if program and program.startswith(("/usr/bin/", "/usr/sbin/", "/bin/", "/sbin/")):
                    found.setdefault(program, path.name)
    return found


def owners(program):
    """The packages that program, or what a link stands for, belongs to."""
    names = set()
    for path in {
        program,
        os.path.realpath(program),
        re.sub("^/usr", "", program),
        re.sub("^/usr", "", os.path.realpath(program)),
    }:
        found = subprocess.run(["dpkg", "-S", path], capture_output=True, text=True)
        names |= {
            name.split(":")[0].strip()
            for line in found.stdout.splitlines()
            if not line.startswith("diversion")
            for name in line.rsplit(": ", 1)[0].split(",")
        }
    return names


@pytest.mark.slow
def test_programs_that_tests_start_belong_to_listed_packages():
    needs, reached, provides = installed_packages()
    waiting = listed_packages() | reached
    missing = {name for name in waiting if name not in needs}
    assert not missing, f"listed in tools/setup.sh, but not installed: {missing}"
    while waiting:
        reached |= waiting
        waiting = {
            more
            for name in waiting
            for need in needs.get(name, ())
            for more in {need} | provides.get(need, set())
        } - reached
    programs = programs_of_tests()
    assert {"/usr/bin/qemu-img", "/usr/bin/nbdkit"} <= set(programs)
    strange = {program: file for program, file in programs.items() if not owners(program) & reached}
    assert not strange, f"add their packages to tools/setup.sh: {strange}"
