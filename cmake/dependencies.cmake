# Every library that Cairn needs, with the Debian package to install when one is missing.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

function(cairn_missing what package)
  message(FATAL_ERROR "${what} was not found. Install it with: apt-get install ${package}")
endfunction()

macro(cairn_pkg prefix module package)
  pkg_check_modules(${prefix} QUIET IMPORTED_TARGET ${module})
  if(NOT ${prefix}_FOUND)
    cairn_missing("${module}" "${package}")
  endif()
endmacro()

# The archive where there is one: few runs need it, and every run would bind it.
find_library(SECCOMP_LIBRARY NAMES libseccomp.a seccomp)
find_path(SECCOMP_HEADER seccomp.h)
if(NOT SECCOMP_LIBRARY OR NOT SECCOMP_HEADER)
  cairn_missing("libseccomp" libseccomp-dev)
endif()

# The archive, for the same reason.
find_library(PUGIXML_LIBRARY NAMES libpugixml.a pugixml)
find_path(PUGIXML_HEADER pugixml.hpp)
if(NOT PUGIXML_LIBRARY OR NOT PUGIXML_HEADER)
  cairn_missing("pugixml" libpugixml-dev)
endif()

# {fmt}: its headers alone; src/base/fmt.cc compiles the rest.
find_path(FMT_HEADER fmt/format-inl.h)
if(NOT FMT_HEADER)
  cairn_missing("fmt" libfmt-dev)
endif()

# GnuTLS is bound at run time, when TLS is first asked for: only its headers are needed here.
cairn_pkg(GNUTLS gnutls libgnutls28-dev)
add_library(GNUTLS::Headers INTERFACE IMPORTED)
target_include_directories(GNUTLS::Headers INTERFACE ${GNUTLS_INCLUDE_DIRS})

# So is libfuse3, when something is mounted.
cairn_pkg(FUSE fuse3 libfuse3-dev)
add_library(FUSE::Headers INTERFACE IMPORTED)
target_include_directories(FUSE::Headers INTERFACE ${FUSE_INCLUDE_DIRS})
target_compile_options(FUSE::Headers INTERFACE ${FUSE_CFLAGS_OTHER})

# And libcurl, when a URL is opened.
cairn_pkg(CURL libcurl libcurl4-gnutls-dev)
add_library(CURL::Headers INTERFACE IMPORTED)
target_include_directories(CURL::Headers INTERFACE ${CURL_INCLUDE_DIRS})

# And libssh, when a disk of an SSH server is opened.
cairn_pkg(SSH libssh libssh-dev)
add_library(SSH::Headers INTERFACE IMPORTED)
target_include_directories(SSH::Headers INTERFACE ${SSH_INCLUDE_DIRS})

# And libiscsi, when a unit of an iSCSI target is.
cairn_pkg(ISCSI libiscsi libiscsi-dev)
add_library(ISCSI::Headers INTERFACE IMPORTED)
target_include_directories(ISCSI::Headers INTERFACE ${ISCSI_INCLUDE_DIRS})

# And libnfs, when a file of an NFS server is.
cairn_pkg(NFS libnfs libnfs-dev)
add_library(NFS::Headers INTERFACE IMPORTED)
target_include_directories(NFS::Headers INTERFACE ${NFS_INCLUDE_DIRS})

# And libgfapi, when a file of a GlusterFS volume is. Its module asks for macros that are the C library's own.
find_path(GFAPI_HEADER glusterfs/api/glfs.h)
if(NOT GFAPI_HEADER)
  cairn_missing("libgfapi" libglusterfs-dev)
endif()
add_library(GFAPI::Headers INTERFACE IMPORTED)
target_include_directories(GFAPI::Headers INTERFACE ${GFAPI_HEADER})

# And librados with librbd, when an image of a Ceph cluster is. They have no files for pkg-config.
find_path(RBD_INCLUDE_DIR rbd/librbd.h)
find_path(RADOS_INCLUDE_DIR rados/librados.h)
if(NOT RBD_INCLUDE_DIR OR NOT RADOS_INCLUDE_DIR)
  cairn_missing("librbd" librbd-dev)
endif()
add_library(RBD::Headers INTERFACE IMPORTED)
target_include_directories(RBD::Headers INTERFACE ${RBD_INCLUDE_DIR} ${RADOS_INCLUDE_DIR})

# And the line editor, when somebody sits at a terminal.
cairn_pkg(EDIT libedit libedit-dev)
add_library(EDIT::Headers INTERFACE IMPORTED)
target_include_directories(EDIT::Headers INTERFACE ${EDIT_INCLUDE_DIRS})

# Where the archives are there the program has them inside: binding shared ones would cost every
# start, also of those that look at plain images.
function(cairn_static_pkg target module library package)
  cairn_pkg(${module}_FOR_CAIRN ${module} ${package})
  find_library(${module}_ARCHIVE lib${library}.a)
  add_library(${target} INTERFACE)
  if(${module}_ARCHIVE)
    target_link_libraries(${target} INTERFACE ${${module}_ARCHIVE} ${ARGN})
  else()
    target_link_libraries(${target} INTERFACE PkgConfig::${module}_FOR_CAIRN)
  endif()
endfunction()
cairn_static_pkg(cairn_uring liburing uring liburing-dev)
cairn_static_pkg(cairn_zlib zlib z zlib1g-dev)
cairn_static_pkg(cairn_zstd libzstd zstd libzstd-dev)
cairn_static_pkg(cairn_deflate libdeflate deflate libdeflate-dev)
cairn_static_pkg(cairn_gpg_error gpg-error gpg-error libgpg-error-dev)
cairn_static_pkg(cairn_gcrypt libgcrypt gcrypt libgcrypt20-dev cairn_gpg_error)
# For Twofish with keys of 192 bits, which LUKS images may have and libgcrypt lacks; nothing else is taken from it.
cairn_static_pkg(cairn_nettle nettle nettle nettle-dev)
cairn_static_pkg(cairn_argon2 libargon2 argon2 libargon2-dev Threads::Threads)

# Decoders that few images need: archives cost no start, and work in the sandbox as well, where no
# file of the system can be opened.
cairn_static_pkg(cairn_lzma liblzma lzma liblzma-dev Threads::Threads)
cairn_static_pkg(cairn_lz4 liblz4 lz4 liblz4-dev)
find_library(BZIP2_LIBRARY NAMES libbz2.a bz2)
find_path(BZIP2_HEADER bzlib.h)
if(NOT BZIP2_LIBRARY OR NOT BZIP2_HEADER)
  cairn_missing("libbz2" libbz2-dev)
endif()
