# Sourced by ./cairn and ./test: installs Debian packages that are missing, once.

# need_packages STAMP PACKAGE…: nothing happens when all are there.
need_packages() {
  local stamp=$1 missing=() package state
  shift
  # A longer list is looked at again.
  [[ $stamp -nt ${BASH_SOURCE[0]} ]] && return 0
  for package in "$@"; do
    state=$(dpkg-query -W -f='${db:Status-Status} ${Version}' "${package%%/*}" 2>/dev/null)
    # What is asked of the backports is too old as the release has it.
    [[ $state == installed* && ($package != */* || $state == *bpo*) ]] || missing+=("$package")
  done
  if ((${#missing[@]})); then
    local as_root=()
    if ((EUID != 0)); then
      command -v sudo >/dev/null || {
        echo "Please install as root: ${missing[*]%%/*}" >&2
        return 1
      }
      as_root=(sudo)
    fi
    case " ${missing[*]} " in *bookworm-backports*) need_backports "${as_root[@]}" ;; esac
    echo "Installing Debian packages: ${missing[*]%%/*}" >&2
    "${as_root[@]}" apt-get update -qq >&2 || true
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends \
      "${missing[@]}" >/dev/null || {
      echo "Some packages could not be installed: ${missing[*]%%/*}" >&2
      return 1
    }
  fi
  mkdir -p "${stamp%/*}" && : >"$stamp"
}

# Adds the backports suite next to the release's own, at the same source.
need_backports() {
  local file
  grep -rqs 'bookworm-backports' /etc/apt/sources.list /etc/apt/sources.list.d && return 0
  for file in /etc/apt/sources.list.d/*.sources; do
    [[ -e $file ]] && "$@" sed -i '/^Suites:.*bookworm-updates/s/$/ bookworm-backports/' "$file"
  done
  [[ -e /etc/apt/sources.list ]] && "$@" sed -i -E \
    '/^deb .* bookworm-updates /{p;s/bookworm-updates/bookworm-backports/}' /etc/apt/sources.list
  return 0
}

BUILD_PACKAGES=(g++-12 cmake ninja-build pkg-config liburing-dev zlib1g-dev libzstd-dev
  libdeflate-dev libgcrypt20-dev libgpg-error-dev nettle-dev libargon2-dev libedit-dev)
BUILD_PACKAGES+=(libseccomp-dev)
# What images of others are compressed with.
BUILD_PACKAGES+=(libbz2-dev liblzma-dev liblz4-dev)
# DMG images: their property list, and another reader of all their compressions.
BUILD_PACKAGES+=(libexpat1-dev)
TEST_PACKAGES+=(7zip)
TEST_PACKAGES=(clang-19 lld-19 libclang-rt-19-dev libgtest-dev libgmock-dev python3 python3-pytest
  python3-pytest-xdist clang-format git qemu-utils/bookworm-backports libqcow-utils python3-libqcow util-linux e2fsprogs time cryptsetup-bin
  openssl)
# What the network is made and tested with.
BUILD_PACKAGES+=(libgnutls28-dev)
TEST_PACKAGES+=(gnutls-bin libnbd-bin python3-libnbd nbdkit fio)
# A maker and reader of cloop images, and what its tests encode with.
TEST_PACKAGES+=(cloop-utils python3-lz4 python3-lzo)
# Another reader of VMware's disks, for their tests.
TEST_PACKAGES+=(libvmdk-utils python3-libvmdk)
# Appliances: their descriptor, and what tests take them apart with.
BUILD_PACKAGES+=(libpugixml-dev)
TEST_PACKAGES+=(libxml2-utils tar)
# What mounting and its tests, and those of the NBD client, need.
BUILD_PACKAGES+=(libfuse3-dev fuse3)
TEST_PACKAGES+=(fdisk nbd-server)
# An independent reader of VHD and VHDX.
TEST_PACKAGES+=(python3-libvhdi)
TEST_PACKAGES+=(qemu-system-x86/bookworm-backports qemu-system-data/bookworm-backports seabios/bookworm-backports
  linux-image-cloud-amd64 busybox-static cpio kmod)
# Checkers and readers of FAT, and what kills a program at a chosen step.
TEST_PACKAGES+=(dosfstools mtools strace)
# Second opinions on Parallels images and those of Bochs.
TEST_PACKAGES+=(ploop bximage)
