"""An engine that is nothing but GPU memory: fills it with a pattern and tells its sum over HTTP.

usage: memory_engine.py PORT BYTES

GET /health is 200 once the memory is filled; GET /sum reads all of it back and sums it. It separates what
moving GPU state costs from what an engine costs. Needs `cuda-bindings` and numpy.
"""

# A program of its own, started in a child process: it is its own edge.
# ruff: noqa: TID251

import socket
import sys

import numpy as np
from cuda.bindings import driver

BLOCK_BYTES = 256 * 2**20


def asked(answer):
    result, *values = answer
    if result.value != 0:
        raise SystemExit(f"CUDA: {result.name}")
    return values[0] if len(values) == 1 else values


class Memory:
    def __init__(self, size):
        asked(driver.cuInit(0))
        device = asked(driver.cuDeviceGet(0))
        asked(driver.cuCtxSetCurrent(asked(driver.cuDevicePrimaryCtxRetain(device))))
        self.blocks = []
        for offset in range(0, size, BLOCK_BYTES):
            count = min(BLOCK_BYTES, size - offset)
            block = asked(driver.cuMemAlloc(count))
            # Random, so that nothing on the way can compress it.
            content = np.random.default_rng(offset).integers(0, 256, count, dtype=np.uint8)
            asked(driver.cuMemcpyHtoD(block, content.ctypes.data, count))
            self.blocks.append((block, count))

    def total(self):
        total = 0
        for block, count in self.blocks:
            content = np.empty(count, dtype=np.uint8)
            asked(driver.cuMemcpyDtoH(content.ctypes.data, block, count))
            total += int(content.sum(dtype=np.uint64))
        return total


def main():
    memory = Memory(int(sys.argv[2]))
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    print("listening", flush=True)
    while True:
        connection, _ = listener.accept()
        with connection:
            words = connection.recv(65536).split()
            if len(words) < 2:
                continue
            body = str(memory.total()) if words[1] == b"/sum" else "ok"
            head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall((head + body).encode())


main()
