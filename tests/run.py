"""Builds what the tests need, runs all of them and closes with a line that counts them."""
import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as tree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
BUILD = TOP / "build"
CALLED_FROM = Path(os.environ.get("CAIRN_CALLED_FROM", "."))
JOBS = str(os.cpu_count() or 2)
# Tests of programs wait for servers and signals for half of their time.
PROGRAM_JOBS = str(2 * int(JOBS))
# The slowest take a minute on two idle processors.
TEST_SECONDS = "600"


class Totals:
    passed = 0
    failed = 0
    names = []  # of what failed, in order


class Selection:
    """The tests to run: all, those whose names contain a word, or those of directories and files."""

    def __init__(self, words):
        self.pattern, self.places = "", []
        for word in words:
            place = next(
                (place for place in (CALLED_FROM / word, TOP / word) if place.exists()), Path()
            ).resolve()
            if place.is_relative_to(TOP / "tests"):
                self.places.append(place)
            else:
                self.pattern = word
        if self.pattern and (self.places or len(words) > 1):
            sys.exit("Give either one part of a name, or files and directories of tests.")
        files = [
            file
            for place in self.places
            for file in ([place] if place.is_file() else sorted(place.rglob("*")))
        ]
        self.cases = [
            f"{suite}.{name}"
            for file in files
            if file.name.endswith("_test.cc")
            for suite, name in re.findall(
                r"^TEST(?:_[FP])?\((\w+), (\w+)\)", file.read_text(), re.M
            )
        ]
        self.programs = not self.places or any(
            re.fullmatch(r"test_\w+\.py", file.name) for file in files
        )
        self.units = not self.places or bool(self.cases)
        if not self.programs and not self.units:
            sys.exit(f"There are no tests in {', '.join(map(str, self.places))}.")

    def all(self):
        return not self.pattern and not self.places

    def windows(self):
        """Whether the program for Windows is tested."""
        place = TOP / "tests" / "windows"
        return self.all() or any(
            each.is_relative_to(place) or place.is_relative_to(each) for each in self.places
        )

    def unit_filter(self):
        """For --gtest_filter; tests with parameters have names around that of the case."""
        if self.places:
            return ":".join(f"{case}:{case}/*:*/{case}:*/{case}/*" for case in self.cases)
        return f"*{self.pattern}*"

    def program_words(self, otherwise):
        places = [str(place) for place in self.places if place.is_dir() or place.suffix == ".py"]
        return [
            *(places or (["tests"] if self.pattern else otherwise)),
            *(["-k", self.pattern] if self.pattern else []),
        ]


def step(name, command, env=None, timeout=1500):
    """Runs a command with its output in a log; shows the log's end when it fails."""
    log = BUILD / (re.sub(r"\W+", "-", name) + ".log")
    begin = time.monotonic()
    with open(log, "wb") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            cwd=TOP,
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            # Interrupted, tests still say what has failed up to here.
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            process.kill()
            process.wait()
            code = -1
            out.write(b"\nended: took too long\n")
    print(
        f"{name}: {'ok' if code == 0 else 'FAILED'} ({time.monotonic() - begin:.0f} s)", flush=True
    )
    if code != 0:
        Totals.names.append(f"{name} ({log.relative_to(TOP)})")
        lines = log.read_text(errors="replace").splitlines()
        print("\n".join(lines[-60:]), flush=True)
    return code == 0


def failed_in(xml):
    """The names of the cases of a JUnit file that did not pass, or did not run."""
    return [
        f"{case.get('classname')}.{case.get('name')}"
        for case in tree.parse(xml).getroot().iter("testcase")
        if case.get("status") == "notrun"
        or any(child.tag in ("failure", "error", "skipped") for child in case)
    ]


def count(xml, ran_well, may_be_empty=False):
    """Adds the cases of a JUnit file; a run that left none behind, or died, is one failure."""
    try:
        cases = list(tree.parse(xml).getroot().iter("testcase"))
    except (OSError, tree.ParseError):
        Totals.failed += 1
        Totals.names.append(f"{xml.stem}: it left no results")
        return
    bad = failed_in(xml)
    Totals.passed += len(cases) - len(bad)
    Totals.failed += len(bad)
    Totals.names += [f"{xml.stem}: {name}" for name in bad]
    if not ran_well and not bad:
        Totals.failed += 1
        Totals.names.append(f"{xml.stem}: it did not end well")
    if not cases and SELECTED.all() and not may_be_empty:
        Totals.failed += 1
        Totals.names.append(f"{xml.stem}: it has no tests")


def count_again(xml, second):
    """Adds the cases of a JUnit file of which those that failed have passed in a SECOND run."""
    cases = list(tree.parse(xml).getroot().iter("testcase"))
    Totals.passed += len(cases) - len(failed_in(xml))
    count(second, True)


def tally(well):
    Totals.passed += well
    Totals.failed += not well


@contextlib.contextmanager
def build_lock():
    """The lock that ./cairn takes as well: one build at a time in this directory."""
    with open(BUILD / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another ./cairn or ./test is building here; waiting for it.", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(preset, targets, prefix=()):
    with build_lock():
        return build_locked(preset, targets, prefix)


def build_locked(preset, targets, prefix):
    folder = BUILD / preset
    # The release build is also the users', whose compilers may warn of more.
    strict = "OFF" if preset == "release" else "ON"
    configured = step(
        f"configure {preset}",
        ["cmake", "--preset", preset, "-DCAIRN_TESTS=ON", f"-DCAIRN_WERROR={strict}"],
    )
    if configured and step(
        f"build {preset}", [*prefix, "ninja", "-C", str(folder), "-j", JOBS, *targets], timeout=3000
    ):
        if "cairn" in targets:
            (folder / ".built").touch()
        return True
    Totals.failed += 1
    return False


def unit(preset, env=None, label="", program="unit", without=""):
    """Runs the shards of a program of tests side by side."""
    if not SELECTED.units:
        return
    name = f"{program} {preset}{label}"
    stem = str(BUILD / name.replace(" ", "-"))
    begin = time.monotonic()

    def start(xml, cases, more):
        xml.unlink(missing_ok=True)
        command = [
            str(BUILD / preset / "tests" / program),
            f"--gtest_output=xml:{xml}",
            "--gtest_brief=1",
            f"--gtest_filter={cases}",
        ]
        with open(xml.with_suffix(".log"), "wb") as log:
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=TOP,
                env={**os.environ, **more, **(env or {})},
            )

    def code_of(xml, process):
        try:
            code = process.wait(timeout=max(1, 1500 - (time.monotonic() - begin)))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = -1
        if code != 0:
            log = xml.with_suffix(".log").read_text(errors="replace")
            print("\n".join(log.splitlines()[-60:]), flush=True)
        return code

    cases = f"{SELECTED.unit_filter()}{'-' + without if without else ''}"
    runs = []
    for shard in range(int(JOBS)):
        xml = Path(f"{stem}-{shard}.xml")
        sharded = {"GTEST_TOTAL_SHARDS": JOBS, "GTEST_SHARD_INDEX": str(shard)}
        runs.append((xml, start(xml, cases, sharded)))
    every = True
    for xml, process in runs:
        code = code_of(xml, process)
        well = code == 0
        # Where a sanitizer had its say, the code is another, or there are no results.
        again = failed_in(xml) if code == 1 and xml.exists() else []
        if 0 < len(again) <= 5:
            print(f"{name}: failed and run once more:\n  " + "\n  ".join(again), flush=True)
            second = xml.with_name(f"{xml.stem}-again.xml")
            if code_of(second, start(second, ":".join(again), {})) == 0:
                count_again(xml, second)
                continue
        every = every and well
        # A shard of few tests may have none to run.
        count(xml, well, may_be_empty=True)
    print(f"{name}: {'ok' if every else 'FAILED'} ({time.monotonic() - begin:.0f} s)", flush=True)


# For the shell.
PYTHON = "$(git ls-files '*.py' bench tools/figures ':!*.cc')"

# What --quick runs: the verbs and the rules that all of them keep.
QUICK = [
    f"tests/{name}.py"
    for name in (
        "verb/test_verbs",
        "verb/test_manners",
        "verb/test_own_manners",
        "verb/test_overwrite",
        "security/test_cut_files",
        "verb/test_formats",
        "verb/test_hash",
        "verb/test_resize",
        "verb/test_snapshots",
        "project/test_structure",
        "project/test_words",
        "project/test_docs",
    )
]


def programs(preset, env=None, label="", extra=(), places=("tests",)):
    if not SELECTED.programs:
        return
    name = f"programs {preset}{label}"
    stem = BUILD / name.replace(" ", "-")
    failures = stem.with_suffix(".failed")
    place = tempfile.mkdtemp(prefix="cairn-")
    env = {"CAIRN": str(BUILD / preset / "cairn"), "CAIRN_FAILED": str(failures), **(env or {})}

    def run(label, folder, xml, *words):
        for file in (xml, failures):
            file.unlink(missing_ok=True)
        command = [
            *["/usr/bin/python3", "-m", "pytest", "-q", f"--basetemp={place}/{folder}"],
            *["-p", "no:cacheprovider", f"--junitxml={xml}"],
            # A test that hangs is named, and the others go on.
            *["--timeout", TEST_SECONDS],
            *words,
        ]
        return step(label, command, env, timeout=2400)

    xml = stem.with_suffix(".xml")
    ran_well = run(
        name,
        "t",
        xml,
        *["-n", PROGRAM_JOBS, "--dist", "loadfile"],
        *(["-x"] if "--stop" in sys.argv else []),
        *left_out(places, preset + label),
        *extra,
        *SELECTED.program_words(places),
    )
    again = worth_another_run(failures) if not ran_well and "--stop" not in sys.argv else []
    if again:
        print(f"{name}: failed and run once more:\n  " + "\n  ".join(again), flush=True)
        second = stem.with_name(f"{stem.name}-again.xml")
        ran_well = run(f"{name} again", "u", second, *again)
        if ran_well:
            # They are counted as those of the second run.
            Totals.names = [each for each in Totals.names if not each.startswith(f"{name} (")]
            count_again(xml, second)
    if ran_well:
        shutil.rmtree(place, ignore_errors=True)
    if not again or not ran_well:
        count(xml, ran_well or not SELECTED.all())


def left_out(places, name):
    """Directories that are left out of a run of all tests."""
    if SELECTED.places or places != ("tests",):
        return []
    # Those of Windows wait for a build of their own. Those of the sources run no other build of the program.
    folders = ["windows"] if name == "release" else ["windows", "project", "platform"]
    return [word for folder in folders for word in ("--ignore", f"tests/{folder}")]


def worth_another_run(failures):
    """The tests that failed, if a busy machine may be the reason: a few, and in none of them a sanitizer had its say."""
    lines = failures.read_text().splitlines() if failures.exists() else []
    kinds = {line.split(" ", 1)[0] for line in lines}
    names = list(dict.fromkeys("tests/" + line.split(" ", 1)[1] for line in lines))
    return names if kinds == {"failed"} and len(names) <= 5 else []


def everything(tests):
    """All but the release build. The other builds take what time the processors have left while programs wait."""
    threads = {"CAIRN_ENGINE": "threads"}
    with ThreadPoolExecutor(1) as builder:

        def start(preset, *targets):
            return builder.submit(
                lambda: bool(targets) and build(preset, targets, ("nice", "-n", "19"))
            )

        # Without optimisation coroutines behave otherwise: the engine's, which all others use.
        debug = start("debug", *(["engine"] if tests else []))
        windows = start("windows", *(["cairn", "platform_tests"] if SELECTED.windows() else []))
        if SELECTED.places and SELECTED.windows():
            windows.result()
        asan = start("asan", "cairn", *tests, *(["fuzzers"] if SELECTED.all() else []))
        tsan = start("tsan", *tests)
        unit("release")
        # What a crash leaves behind does not depend on the engine.
        unit("release", threads, " threads", without="*Crash*")
        programs("release")
        programs("release", threads, " threads", extra=("-m", "not slow and not any_engine"))
        if debug.result():
            unit("debug", program="engine")
        if SELECTED.all() and windows.result():
            # Their tests share nothing: a file may be in several processes.
            split = ("--dist", "load")
            programs("release", label=" windows", extra=split, places=["tests/windows"])
        if asan.result():
            unit("asan", {"CAIRN_CRASH_STATES": "60"})
            programs("asan", extra=("-m", "not slow and not words"))
            if SELECTED.all():
                xml = BUILD / "fuzz.xml"
                count(
                    xml,
                    step(
                        "fuzz",
                        [
                            "/usr/bin/python3",
                            str(TOP / "fuzz" / "run.py"),
                            str(BUILD / "asan" / "fuzz"),
                            str(xml),
                        ],
                    ),
                )
        if tsan.result():
            # The crash suites record on one worker: nothing races there.
            unit(
                "tsan", {"TSAN_OPTIONS": "halt_on_error=0:exitcode=66"}, without="*Crash*:*Faults*"
            )


def main():
    global SELECTED
    quick = "--quick" in sys.argv
    SELECTED = Selection([word for word in sys.argv[1:] if not word.startswith("-")])
    BUILD.mkdir(exist_ok=True)
    begin = time.monotonic()
    tests = ["unit"] if SELECTED.units else []
    if SELECTED.all():
        tally(
            step(
                "format",
                ["/bin/sh", "-c", "clang-format --dry-run -Werror $(git ls-files '*.cc' '*.h')"],
            )
        )
        tally(step("format Python", ["/bin/sh", "-c", f"black --check --line-length 100 {PYTHON}"]))
    built = build("release", ["cairn", *tests])
    if built and quick:
        unit("release", without="*Crash*:*Faults*:*Conformance*")
        programs("release", extra=("-m", "not slow"), places=QUICK)
    elif built:
        everything(tests)
    if Totals.failed:
        print("Failed:\n  " + "\n  ".join(Totals.names))
    print(f"{time.monotonic() - begin:.0f} seconds")
    print(f"{Totals.passed} passed, {Totals.failed} failed")
    return 1 if Totals.failed or not Totals.passed else 0


SELECTED = Selection([])
if __name__ == "__main__":
    sys.exit(main())
