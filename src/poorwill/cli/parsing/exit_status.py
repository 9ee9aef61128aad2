"""The exit status of every error code: total, checked by a test.

0 is success, 1 is a finding (a check that found something), 130 is an interrupt.
"""

import errno
from collections.abc import Mapping
from types import MappingProxyType

from poorwill.core.errors import ErrorCode

FINDING = 1

EXIT_STATUS: Mapping[ErrorCode, int] = MappingProxyType(
    {
        ErrorCode.CONFIG_INVALID: 2,
        ErrorCode.INVALID_REQUEST: 2,
        ErrorCode.PAYLOAD_TOO_LARGE: 2,
        ErrorCode.UNSUPPORTED_MEDIA: 2,
        ErrorCode.ROUTE_NOT_FOUND: 2,
        ErrorCode.METHOD_NOT_ALLOWED: 2,
        ErrorCode.MODEL_NOT_FOUND: 2,
        ErrorCode.IN_USE: 3,
        ErrorCode.NOT_RUNNING: 4,
        ErrorCode.UNAUTHENTICATED: 5,
        ErrorCode.FORBIDDEN: 5,
        ErrorCode.HOLD_QUEUE_FULL: 6,
        ErrorCode.RATE_LIMITED: 6,
        ErrorCode.OVERLOADED: 6,
        ErrorCode.SPEND_LIMIT: 6,
        ErrorCode.WAKE_FAILED: 7,
        ErrorCode.NO_CAPACITY: 7,
        ErrorCode.DRAINING: 7,
        ErrorCode.WAKE_TIMEOUT: 7,
        ErrorCode.UPSTREAM_CONNECT: 7,
        ErrorCode.UPSTREAM_PROTOCOL: 7,
        ErrorCode.REPLICA_LOST: 7,
        ErrorCode.UPSTREAM_TIMEOUT: 7,
        ErrorCode.LEDGER_UNAVAILABLE: 8,
        ErrorCode.CLIENT_GONE: 130,
        ErrorCode.INTERNAL: 70,
    }
)

THE_MACHINES = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO),
        *(
            errno.EMFILE,
            errno.ENFILE,
            errno.ELOOP,
            errno.ENAMETOOLONG,
            errno.ENOTDIR,
            errno.EISDIR,
            errno.EFBIG,
        ),
    }
)
"""Errors of the operating system that a person mends on the machine: no defect, wherever they come from."""
