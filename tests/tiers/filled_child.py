"""A process whose memory is filled from outside, as criu leaves one: a program of its own.

usage: filled_child.py SOCKET_FD PAGES

It registers PAGES pages with a userfaultfd, prints their address and that of as much room to move them to,
and sends the descriptor. Then it does what each line of its input says and prints what it sees: `read PAGE`,
`drop FIRST COUNT`, `unmap FIRST COUNT`, `move FIRST COUNT`, `fork`, `all PAGE ...`.
"""

# ruff: noqa: T201, TID251

import array
import ctypes
import os
import socket
import sys

PAGE = 4096
MISSING, API, REGISTER = 1, 0xC018AA3F, 0xC020AA00
FORK, REMAP, REMOVE, UNMAP = 1 << 1, 1 << 2, 1 << 3, 1 << 6
MAYMOVE, FIXED, DONTNEED, PRIVATE, ANONYMOUS, READ, WRITE = 1, 2, 4, 2, 0x20, 1, 2

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *([ctypes.c_int] * 3), ctypes.c_long]
libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def new_memory(pages: int, rights: int) -> int:
    return int(libc.mmap(None, pages * PAGE, rights, PRIVATE | ANONYMOUS, -1, 0))


def registered(address: int, pages: int) -> int:
    number = 323 if os.uname().machine == "x86_64" else 282
    descriptor = int(libc.syscall(number, os.O_CLOEXEC | os.O_NONBLOCK))
    assert descriptor >= 0, os.strerror(ctypes.get_errno())
    about = (ctypes.c_uint64 * 3)(0xAA, FORK | REMAP | REMOVE | UNMAP, 0)
    assert libc.ioctl(descriptor, ctypes.c_ulong(API), ctypes.byref(about)) == 0
    region = (ctypes.c_uint64 * 4)(address, pages * PAGE, MISSING, 0)
    assert libc.ioctl(descriptor, ctypes.c_ulong(REGISTER), ctypes.byref(region)) == 0
    return descriptor


def number_at(address: int) -> int:
    return ctypes.c_uint64.from_address(address).value


def main() -> None:
    conversation, pages = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    memory, room = new_memory(pages, READ | WRITE), new_memory(pages, 0)
    descriptor = registered(memory, pages)
    print(memory, room, flush=True)
    socket.send_fds(conversation, [b"?"], array.array("i", [descriptor]))
    os.close(descriptor)
    for line in sys.stdin:
        verb, *rest = line.split()
        numbers = [int(each) for each in rest]
        if verb == "read":
            print(number_at(numbers[0]), flush=True)
        elif verb == "all":
            print(*[number_at(each) for each in numbers], flush=True)
        elif verb == "drop":
            print(libc.madvise(memory + numbers[0] * PAGE, numbers[1] * PAGE, DONTNEED), flush=True)
        elif verb == "unmap":
            print(libc.munmap(memory + numbers[0] * PAGE, numbers[1] * PAGE), flush=True)
        elif verb == "move":
            first, size = numbers[0] * PAGE, numbers[1] * PAGE
            target = room + first
            moved = libc.mremap(memory + first, size, size, MAYMOVE | FIXED, target)
            print(int(moved == target) - 1, flush=True)
        elif verb == "fork":
            read, write = os.pipe()
            if os.fork() == 0:
                os.write(write, b" ".join(b"%d" % number_at(each) for each in numbers))
                os._exit(0)
            os.close(write)
            with os.fdopen(read, "rb") as said:
                print(said.read().decode(), flush=True)
            os.wait()


if __name__ == "__main__":
    main()
