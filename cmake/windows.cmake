# Cairn for Windows: where its libraries are, and what is left out of it. docs/windows.md says the same to users.
set(CAIRN_WINDOWS_LIBRARIES ${CMAKE_SOURCE_DIR}/build/windows-libraries
    CACHE PATH "The folder that tools/windows-libraries has filled")
if(NOT EXISTS ${CAIRN_WINDOWS_LIBRARIES}/.made)
  execute_process(COMMAND ${CMAKE_SOURCE_DIR}/tools/windows-libraries ${CAIRN_WINDOWS_LIBRARIES}
                  COMMAND_ERROR_IS_FATAL ANY)
endif()
find_package(Threads REQUIRED)
# Windows 10; formats of printf() as the standard has them.
add_compile_definitions(_WIN32_WINNT=0x0A00 _FILE_OFFSET_BITS=64 __USE_MINGW_ANSI_STDIO=1)

# Sockets, random bytes, files relative to others, and rights.
set(cairn_system_libraries ws2_32 bcrypt ntdll advapi32)

# Of Debian: zlib, libgcrypt and libgpg-error.
find_path(GCRYPT_HEADER gcrypt.h)
find_path(ZLIB_HEADER zlib.h)
if(NOT GCRYPT_HEADER OR NOT ZLIB_HEADER)
  message(FATAL_ERROR "Install libgcrypt-mingw-w64-dev, libgpg-error-mingw-w64-dev and libz-mingw-w64-dev.")
endif()

# cairn_archive(TARGET LIBRARY OTHER…): an archive, and what it needs itself.
function(cairn_archive target library)
  find_library(${target}_ARCHIVE NAMES lib${library}.a
               HINTS ${CAIRN_WINDOWS_LIBRARIES}/lib NO_CMAKE_FIND_ROOT_PATH)
  find_library(${target}_ARCHIVE NAMES lib${library}.a REQUIRED)
  add_library(${target} INTERFACE)
  target_include_directories(${target} SYSTEM INTERFACE ${CAIRN_WINDOWS_LIBRARIES}/include)
  target_link_libraries(${target} INTERFACE ${${target}_ARCHIVE} ${ARGN})
endfunction()
cairn_archive(cairn_zlib z)
cairn_archive(cairn_zstd zstd)
cairn_archive(cairn_deflate deflate)
cairn_archive(cairn_lzma lzma)
cairn_archive(cairn_lz4 lz4)
cairn_archive(cairn_bzip2 bz2)
cairn_archive(cairn_pugixml pugixml)
cairn_archive(cairn_gpg_error gpg-error ws2_32)
cairn_archive(cairn_gcrypt gcrypt cairn_gpg_error)
cairn_archive(cairn_nettle nettle)
cairn_archive(cairn_argon2 argon2 Threads::Threads)
set(BZIP2_LIBRARY cairn_bzip2)
set(PUGIXML_LIBRARY cairn_pugixml)
target_compile_definitions(cairn_lzma INTERFACE LZMA_API_STATIC)

# The headers of {fmt}, and those of GnuTLS, which is bound at run time where there is one.
include_directories(SYSTEM ${CAIRN_WINDOWS_LIBRARIES}/include)

# What the left-out sources use.
add_library(cairn_uring INTERFACE)
foreach(library GNUTLS FUSE CURL SSH ISCSI RBD NFS GFAPI EDIT)
  add_library(${library}::Headers INTERFACE IMPORTED)
endforeach()

# The sources that are not compiled for Windows, as expressions for what follows src/.
set(cairn_left_out
  # Interfaces of the Linux kernel: FUSE, vhost-user, VFIO, /dev/nbd, seccomp and Landlock.
  export/fuse/ export/vhost_user/ operation/mount[.]cc operation/unmount[.]cc cli/mount[.]cc cli/umount[.]cc
  operation/serve_vhost_user[.]cc cli/nbd/vhost_user[.]cc
  protocol/nvme/ operation/nvme[.]cc cli/nvme[.]cc operation/netlink[.]cc operation/nbd_device[.]cc
  # The daemon and its control socket: they stand on sockets of the file system, and on descriptors passed over them.
  daemon/ control/ operation/control[.]cc cli/nbd/background[.]cc
  # Libraries for which Debian has no sources that compile for Windows without others of their own.
  protocol/library_thread[.]cc protocol/file_session[.]cc protocol/file_session_node[.]cc
  protocol/gluster/ protocol/iscsi/ protocol/nfs/ protocol/rbd/ protocol/ssh/ protocol/s3/ protocol/http/ protocol/web/)
set(cairn_drivers_left_out
  http https ftp ftps s3 ssh iscsi iser gluster nfs rbd nvme)
