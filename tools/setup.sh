# Sourced by ./cairn and ./test: installs the Debian packages that are missing, and lets one build run at a time.
#
# Each list has one assignment. tests/project/test_setup.py checks that the programs which tests start belong to them.

# What the program is compiled from and with.
BUILD_PACKAGES=(g++-12 cmake ninja-build pkg-config util-linux
  liburing-dev libgcrypt20-dev libgpg-error-dev nettle-dev libargon2-dev libseccomp-dev libedit-dev
  zlib1g-dev libdeflate-dev libzstd-dev libbz2-dev liblzma-dev liblz4-dev
  libfmt-dev libpugixml-dev libgnutls28-dev libcurl4-gnutls-dev libssh-dev libiscsi-dev librbd-dev libnfs-dev libglusterfs-dev libfuse3-dev fuse3)

# The packages that only the tests of one format or protocol need; those name them in their first lines: "# Packages: bximage".
format_packages() {
  sed -sn '1,9s/^# Packages: //p' "$(dirname "${BASH_SOURCE[0]}")"/../tests/{format,protocol}/*/*.py 2>/dev/null
}

# What the tests are compiled with, and the programs that they start.
TEST_PACKAGES=(clang-19 lld-19 libclang-rt-19-dev clang-format black libgtest-dev libgmock-dev gcc binutils
  python3 python3-pytest python3-pytest-xdist python3-pytest-timeout git zsh time strace psmisc procps
  coreutils diffutils tar cpio bzip2 xz-utils gzip zstd zip
  fdisk e2fsprogs dosfstools mtools mount kmod
  cryptsetup-bin openssl gnutls-bin
  libnbd-bin python3-libnbd nbdkit nbd-server fio
  seabios linux-image-cloud-amd64 busybox-static
  g++-mingw-w64-x86-64-posix libz-mingw-w64-dev libgcrypt-mingw-w64-dev libgpg-error-mingw-w64-dev dpkg-dev wine wine64
  $(format_packages))

# The same, of versions that the backports of Debian 12 have. What they depend on comes from there as well.
TEST_BACKPORTS=(qemu-utils qemu-block-extra qemu-system-x86)

# Whether package $1 is installed; with a second word only a backport counts, where the system has some.
is_installed() {
  local state
  state=$(dpkg-query -W -f='${db:Status-Status} ${Version}' "$1" 2>/dev/null)
  [[ $state == installed* && (-z ${2:-} || $state == *bpo* || $(codename) != bookworm) ]]
}

codename() { (. /etc/os-release 2>/dev/null && echo "${VERSION_CODENAME:-}"); }

# need_packages STAMP PACKAGE… [-- PACKAGE…]: installs what is missing; those after "--" come from the backports.
# Nothing happens when all are installed. Ends with a message, and 1, when that is impossible.
need_packages() {
  local stamp=$1 list missing=() ported=() package backport=
  shift
  list="$*"
  # A list that changed is checked again.
  [[ -f $stamp && $(<"$stamp") == "$list" || -n ${CAIRN_NO_SETUP:-} ]] && return 0
  if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    say "This system is not Debian: apt-get is missing." \
      "Install what these packages of Debian 12 hold, then set CAIRN_NO_SETUP=1 and run the command again:" \
      "  $(words "$@")"
    return 1
  fi
  for package in "$@"; do
    if [[ $package == -- ]]; then
      backport=1
    elif [[ " ${missing[*]} ${ported[*]} " == *" $package "* ]]; then
      continue  # several lists have it
    elif ! is_installed "$package" "$backport"; then
      if [[ $backport ]]; then ported+=("$package"); else missing+=("$package"); fi
    fi
  done
  if ((${#missing[@]} + ${#ported[@]})); then
    install_packages || return 1
  fi
  printf '%s' "$list" >"$stamp"
}

# Installs what need_packages found in `missing` and `ported`.
install_packages() (
  as_root=() all=("${missing[@]}" "${ported[@]}") log=$top/build/packages.log
  if ((EUID != 0)); then
    if ! command -v sudo >/dev/null; then
      say "Debian packages are missing, and this needs root or sudo to install them. As root, run:" \
        "  apt-get install ${all[*]}"
      exit 1
    fi
    as_root=(sudo)
  fi
  echo "Installing ${#all[@]} Debian packages (the log is ${log#"$top/"}): ${all[*]}" >&2
  as_root+=(env DEBIAN_FRONTEND=noninteractive)
  : >"$log"
  # Servers among the packages are for the tests, which start their own: none is started because it was installed.
  policy=/usr/sbin/policy-rc.d
  if [[ ! -e $policy ]] && "${as_root[@]}" sh -c "printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy" 2>>"$log"; then
    trap '"${as_root[@]}" rm -f "$policy"' EXIT
  fi
  if ! "${as_root[@]}" apt-get update -qq >>"$log" 2>&1; then
    echo "The package lists could not be updated; trying with the present ones." >&2
  fi
  if ((${#missing[@]})); then
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >>"$log" 2>&1 ||
      not_installed "${missing[@]}" || exit 1
  fi
  if ((${#ported[@]})); then
    release=()
    if [[ $(codename) == bookworm ]]; then
      need_backports "${as_root[@]}"
      release=(-t bookworm-backports)
    fi
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${release[@]}" "${ported[@]}" >>"$log" 2>&1 ||
      not_installed "${ported[@]}" || exit 1
  fi
)

# Says why apt-get failed, with the end of its log.
not_installed() {
  tail -n 5 "$log" >&2
  if grep -qE 'Could not resolve|Could not connect|Temporary failure|Failed to fetch|Network is unreachable' "$log"; then
    say "Debian packages could not be fetched: there is no network, or no package source answers." \
      "When there is, run the command again. What is needed:" "  $*"
  elif grep -q 'Unable to locate package' "$log"; then
    say "No package source of this system has all of these packages (Debian 12 has them):" "  $*"
  else
    say "Debian packages could not be installed (the log is ${log#"$top/"}). What is needed:" "  $*"
  fi
  return 1
}

# Adds the backports suite, from where the release itself comes from. "$@" is what makes a command run as root.
need_backports() {
  local target uri= key= list=/etc/apt/sources.list.d/cairn-backports.list
  while IFS='|' read -r release uri_of key_of; do
    [[ $release == bookworm-backports ]] && return 0
    # apt prints the words of the format where a source names no key.
    [[ $release == bookworm ]] && uri=$uri_of key=${key_of##[!/]*}
  done < <(apt-get indextargets --format '$(RELEASE)|$(REPO_URI)|$(SIGNED_BY)' 'Created-By: Packages' 2>/dev/null)
  [[ $uri ]] || return 0
  target="deb ${key:+[signed-by=$key] }$uri bookworm-backports main"
  echo "Adding $list." >&2
  "$@" sh -c "echo '$target' >$list" && "$@" apt-get update -qq >>"$log" 2>&1
}

say() { printf '%s\n' "$@" >&2; }
words() { local all=" $* "; all=${all/ -- / }; echo ${all}; }

# Makes build/ and takes its lock: one set-up or build at a time. The lock ends with the process, or with unlock_build.
lock_build() {
  if ! mkdir -p "$top/build" 2>/dev/null || ! [[ -w $top/build ]]; then
    say "Cairn is built in $top/build, which cannot be written to." \
      "Make a copy of this directory where you can write, and run the command there."
    return 1
  fi
  exec {build_lock}>"$top/build/.lock" || return 1
  # Set-up may have to install flock first.
  command -v flock >/dev/null || return 0
  flock -n "$build_lock" && return 0
  echo "Another ./cairn or ./test is being set up or built here; waiting for it." >&2
  flock "$build_lock"
}

unlock_build() { exec {build_lock}>&-; }
