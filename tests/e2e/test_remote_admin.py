"""Operators on other machines: TLS with a certificate that is renewed, keys, and `--url`."""

import socket
import ssl
import subprocess
from pathlib import Path

import httpx2
import pytest
from tests.waiting import wait_until

from .program import Program, write_fleet
from .test_monitoring import free_port
from .test_operators import ask


def certify(directory: Path, serial: int) -> Path:
    """Write a certificate for localhost and its key, as an ACME client does; return the certificate."""
    made = directory / "cert.pem", directory / "key.pem"
    words = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost "
        f"-days 2 -addext subjectAltName=DNS:localhost -set_serial {serial}"
    )
    files = "-out", f"{made[0]}.new", "-keyout", f"{made[1]}.new"
    subprocess.run([*words.split(), *files], check=True, capture_output=True)
    for file in reversed(made):
        Path(f"{file}.new").replace(file)
    return made[0]


def with_remote(fleet: Path, *lines: str) -> int:
    """Write a fleet with an admin listener for other machines; return its port."""
    port = free_port()
    write_fleet(fleet)
    table = ["[gateway.remote_admin]", f'listen = "0.0.0.0:{port}"', *lines]
    (fleet / "fleet.toml").write_text((fleet / "fleet.toml").read_text() + "\n" + "\n".join(table) + "\n")
    return port


TLS = 'certificate = "cert.pem"', 'private_key = "key.pem"'


def add_operator(fleet: Path) -> str:
    status, key, _ = ask("keys", "add", "ann", "--operator", "--fleet", str(fleet))
    assert status == 0
    return key.strip()


def serial_of(port: int, ca: Path) -> str:
    context = ssl.create_default_context(cafile=str(ca))
    with socket.create_connection(("localhost", port), 30) as sock:
        with context.wrap_socket(sock, server_hostname="localhost") as secured:
            found = secured.getpeercert()
    assert found is not None
    return str(found["serialNumber"])


def test_by_tls_and_key(fleet: Path, tmp_path: Path) -> None:
    cert, port = certify(fleet, 1), with_remote(fleet, *TLS)
    key = add_operator(fleet)
    assert ask("check", str(fleet))[0] == 0
    key_file = tmp_path / "key"
    key_file.write_text(key + "\n")
    program = Program.start(fleet)
    try:
        assert program.ask().status_code == 200  # clients still need no key
        url, trusted = ("--url", f"https://localhost:{port}"), ("--ca", str(cert))
        by_env = ask("status", *url, *trusted, POORWILL_ADMIN_KEY=key)
        assert by_env[0] == 0 and "toy" in by_env[1]
        by_file = (*url, *trusted, "--key-file", str(key_file))
        for words in (("status",), ("top",), ("park", "toy"), ("wake", "toy"), ("logs", "toy"), ("reload",)):
            assert ask(*words, *by_file)[0] == 0, words
        refused = ask("status", *url, *trusted)
        assert refused[0] != 0 and "asks for an operator's key" in refused[2]
        untrusted = ask("status", *url, POORWILL_ADMIN_KEY=key)
        assert untrusted[0] == 4 and "not trusted" in untrusted[2] and "--ca" in untrusted[2]
        clear = ask("status", "--url", "http://192.0.2.1:1", POORWILL_ADMIN_KEY=key)
        assert clear[0] == 2 and "unencrypted" in clear[2]
        assert key not in (fleet / "serve.log").read_text()

        before = serial_of(port, cert)
        certify(fleet, 2)
        assert (before, serial_of(port, cert)) == ("01", "02")
        assert ask("keys", "revoke", "ann", "--fleet", str(fleet))[0] == 0
        wait_until(lambda: ask("status", *by_file)[0] != 0, within_s=5)
    finally:
        assert program.stop() == 0


def test_half_a_renewal_keeps_the_old_certificate(fleet: Path) -> None:
    cert, port = certify(fleet, 1), with_remote(fleet, *TLS)
    add_operator(fleet)
    program = Program.start(fleet)
    try:
        trusted = cert.read_bytes()
        cert.write_text("half of a certific")
        old = fleet / "old.pem"
        old.write_bytes(trusted)
        assert serial_of(port, old) == "01"
        wait_until(lambda: "the renewed certificate is not used" in (fleet / "serve.log").read_text())
    finally:
        assert program.stop() == 0


def test_behind_a_proxy(fleet: Path) -> None:
    port = with_remote(fleet, "behind_proxy = true")
    key = add_operator(fleet)
    program = Program.start(fleet)
    try:
        url = f"http://127.0.0.1:{port}"
        assert httpx2.get(f"{url}/status", timeout=30).status_code == 401
        assert ask("status", "--url", url, POORWILL_ADMIN_KEY=key)[0] == 0
        login = httpx2.get(url, headers={"Host": "ops.example"}, timeout=30)
        assert login.status_code == 200 and "Operator" in login.text
    finally:
        assert program.stop() == 0


@pytest.mark.parametrize(
    ("lines", "key", "said"),
    [
        ((), True, "needs either certificate and private_key, or behind_proxy"),
        ((*TLS, "behind_proxy = true"), True, "needs either"),
        (TLS[:1], True, "needs either"),
        (TLS, False, "poorwill keys add NAME --operator"),
        (TLS, True, "are no TLS certificate and its key"),
    ],
)
def test_what_it_needs(fleet: Path, lines: tuple[str, ...], key: bool, said: str) -> None:
    with_remote(fleet, *lines)
    if key:
        add_operator(fleet)
    status, _, told = ask("serve", str(fleet), "--port", "0")
    assert status == 2 and said in told
    status, out, _ = ask("check", str(fleet))
    assert status == 2 and said in out and "gateway.remote_admin" in out
