"""The few NVML calls that bench/gpu and poorwill make."""

from types import SimpleNamespace


def init_v2():
    return None


def shutdown():
    return None


def device_get_count_v2():
    return 1


def device_get_handle_by_index_v2(index):
    return index


def device_get_name(handle):
    return "no GPU at all"


def device_get_uuid(handle):
    return "GPU-none"


def system_get_driver_version():
    return "000.00"


def device_get_memory_info_v2(handle):
    return SimpleNamespace(free=80 * 2**30)
