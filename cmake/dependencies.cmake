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

find_package(fmt QUIET)
if(NOT fmt_FOUND)
  cairn_missing("{fmt}" libfmt-dev)
endif()
find_package(ZLIB QUIET)
if(NOT ZLIB_FOUND)
  cairn_missing("zlib" zlib1g-dev)
endif()
cairn_pkg(URING liburing liburing-dev)
cairn_pkg(ZSTD libzstd libzstd-dev)
cairn_pkg(GCRYPT libgcrypt libgcrypt20-dev)
cairn_pkg(DEFLATE libdeflate libdeflate-dev)
cairn_pkg(EDIT libedit libedit-dev)

# GnuTLS is bound at run time, when TLS is first asked for: only its headers are needed here.
cairn_pkg(GNUTLS gnutls libgnutls28-dev)
add_library(GNUTLS::Headers INTERFACE IMPORTED)
target_include_directories(GNUTLS::Headers INTERFACE ${GNUTLS_INCLUDE_DIRS})

# So is libfuse3, when something is mounted.
cairn_pkg(FUSE fuse3 libfuse3-dev)
add_library(FUSE::Headers INTERFACE IMPORTED)
target_include_directories(FUSE::Headers INTERFACE ${FUSE_INCLUDE_DIRS})
target_compile_options(FUSE::Headers INTERFACE ${FUSE_CFLAGS_OTHER})
