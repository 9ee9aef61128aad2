"""The few driver calls that bench/gpu makes. Each answers (result, value...) as the real ones do."""

import ctypes
from enum import Enum

PINNED = 1
"""What a pinned block is called here: its content is never looked at."""


class Result(Enum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1


blocks = {}


def cuInit(flags):
    return (Result.CUDA_SUCCESS,)


def cuDeviceGet(index):
    return Result.CUDA_SUCCESS, index


def cuDevicePrimaryCtxRetain(device):
    return Result.CUDA_SUCCESS, object()


def cuDevicePrimaryCtxRelease(device):
    return (Result.CUDA_SUCCESS,)


def cuCtxSetCurrent(context):
    return (Result.CUDA_SUCCESS,)


def cuMemHostAlloc(count, flags):
    return Result.CUDA_SUCCESS, PINNED


def cuMemFreeHost(pinned):
    return (Result.CUDA_SUCCESS,)


def cuMemAlloc(count):
    handle = 1000 + len(blocks)
    blocks[handle] = bytearray(count)
    return Result.CUDA_SUCCESS, handle


def cuMemFree(block):
    del blocks[block]
    return (Result.CUDA_SUCCESS,)


def cuMemcpyHtoD(block, source, count):
    if block not in blocks:
        return (Result.CUDA_ERROR_INVALID_VALUE,)
    if source != PINNED:
        blocks[block][:] = ctypes.string_at(source, count)
    return (Result.CUDA_SUCCESS,)


def cuMemcpyDtoH(target, block, count):
    if block not in blocks:
        return (Result.CUDA_ERROR_INVALID_VALUE,)
    if target != PINNED:
        ctypes.memmove(target, bytes(blocks[block]), count)
    return (Result.CUDA_SUCCESS,)
