"""Which user of this machine is at the other end of a loopback connection.

The kernel lists both ends of such a connection with the user who owns each (proc_net_tcp(5)). An end whose
process has closed it has no owner, and reads as root's: its inode is 0.
"""

import ipaddress
import pwd
import socket
import sys
from collections.abc import Collection, Iterable

Address = tuple[str, int]
_ESTABLISHED = "01"
_FAMILIES = (("/proc/self/net/tcp", 4), ("/proc/self/net/tcp6", 6))


def peer_user(peer: Address, ours: Address) -> int | None:
    """Return the uid of the process that is connected to us from `peer`, None if it cannot be told."""
    for path, version in _FAMILIES * 2:  # a row can be missed if other sockets close meanwhile
        try:
            with open(path, encoding="ascii") as table:
                uid = _owner(table, _spelt(peer, version), _spelt(ours, version))
        except OSError:
            continue
        if uid is not None:
            return uid
    return None


def user_ids(names: Iterable[str]) -> Collection[int]:
    """Return the uids of users. Raises KeyError for a name that this machine does not know."""
    return {pwd.getpwnam(name).pw_uid for name in names}


def _owner(table: Iterable[str], peer: str, ours: str) -> int | None:
    for line in table:
        row = line.split()
        if row[1] == peer and row[2] == ours and row[3] == _ESTABLISHED and row[9] != "0":
            return int(row[7])
    return None


def _spelt(address: Address, version: int) -> str:
    """Return an address as the kernel's table spells it: words in the machine's byte order."""
    host, port = address
    ip = ipaddress.ip_address(host.partition("%")[0])
    if version == 6 and ip.version == 4:
        ip = ipaddress.IPv6Address(f"::ffff:{ip}")
    elif version == 4 and isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is None:
            return ""
        ip = ip.ipv4_mapped
    packed = socket.inet_pton(socket.AF_INET if version == 4 else socket.AF_INET6, str(ip))
    words = [packed[at : at + 4] for at in range(0, len(packed), 4)]
    if sys.byteorder == "little":
        words = [word[::-1] for word in words]
    return f"{b''.join(words).hex().upper()}:{port:04X}"
