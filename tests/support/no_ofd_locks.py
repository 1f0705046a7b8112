"""Runs a program whose kernel answers requests for locks of open files with an error, as an old kernel does with EINVAL:
no_ofd_locks.py ERRNO PROGRAM [ARGUMENT...]"""
import ctypes
import errno
import fcntl
import os
import struct
import sys

SYS_FCNTL = 72
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
SET_NO_NEW_PRIVS, SET_SECCOMP, FILTER = 38, 22, 2
LOAD, EQUAL, AT_LEAST, MORE, RETURN = 0x20, 0x15, 0x35, 0x25, 0x06


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def refuse(number):
    """fcntl with F_OFD_GETLK, F_OFD_SETLK and F_OFD_SETLKW fails from now on."""
    steps = [
        (LOAD, 0, 0, 0),  # the number of the system call
        (EQUAL, 0, 4, SYS_FCNTL),
        (LOAD, 0, 0, 24),  # its second argument
        (AT_LEAST, 0, 2, fcntl.F_OFD_GETLK),
        (MORE, 1, 0, fcntl.F_OFD_SETLKW),
        (RETURN, 0, 0, ERRNO | number),
        (RETURN, 0, 0, ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = Program(len(steps), ctypes.cast(code, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(SET_SECCOMP, FILTER, ctypes.byref(program)) == 0, ctypes.get_errno()


if __name__ == "__main__":
    refuse(getattr(errno, sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
