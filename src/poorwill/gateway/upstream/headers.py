"""Which header lines pass between a client and an engine: not those for one hop, and no key for elsewhere."""

# For this hop alone (RFC 9110 section 7.6.1), or written anew by `Response`.
HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"content-length",
        b"x-request-id",
        b"x-poorwill-wake",
        b"x-poorwill-bridge",
        # Which web pages may read an answer is for the configuration to say: llama.cpp lets every page.
        b"access-control-allow-origin",
        b"access-control-allow-credentials",
        b"access-control-allow-headers",
        b"access-control-allow-methods",
        b"access-control-expose-headers",
        b"access-control-allow-private-network",
        b"access-control-max-age",
    }
)
_CREDENTIALS = frozenset({b"authorization", b"x-api-key", b"api-key"})


def without_credentials(forward: bytes) -> bytes:
    """Return header lines without what a client may have brought for an engine of this machine."""
    if b"uth" not in forward.lower() and b"api-key" not in forward.lower():
        return forward
    lines = forward.split(b"\r\n")[:-1]
    return b"".join(b"%b\r\n" % line for line in lines if line.partition(b":")[0].lower() not in _CREDENTIALS)
