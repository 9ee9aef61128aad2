"""KV-cache capacity as engines report it, asked of a real listener."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from poorwill.telemetry.loadtest.client import Target
from poorwill.telemetry.loadtest.load import kv_capacity

VLLM = b"""\
# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
vllm:cache_config_info{block_size="16",cache_dtype="auto",num_gpu_blocks="70688",swap_space="4"} 1.0
"""


@asynccontextmanager
async def engine(answers: Mapping[str, bytes]) -> AsyncIterator[Target]:
    """Listens and answers each path with its body, else with 404."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = answers.get(head.split()[1].decode())
        status = b"200 OK" if body is not None else b"404 Not Found"
        data = body or b""
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(data), data))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield Target(route="direct", host="127.0.0.1", port=port, model="m")


@pytest.mark.parametrize(
    ("answers", "capacity"),
    [
        (
            {"/metrics": VLLM},
            {"blocks": 70688, "block_tokens": 16, "tokens": 1_131_008},
        ),
        (
            {
                "/props": json.dumps(
                    {"total_slots": 4, "default_generation_settings": {"n_ctx": 2048}}
                ).encode()
            },
            {"slots": 4, "slot_tokens": 2048, "tokens": 8192},
        ),
        ({"/server_info": b'{"max_total_num_tokens": 444500}'}, {"tokens": 444500}),
        ({"/get_server_info": b'{"max_total_num_tokens": 1234}'}, {"tokens": 1234}),
        ({}, {}),
        ({"/metrics": b"\xff", "/props": b"no json", "/server_info": b"[]"}, {}),
        ({"/metrics": b'vllm:cache_config_info{num_gpu_blocks="None",block_size="16"} 1'}, {}),
    ],
    ids=["vllm", "llama.cpp", "sglang", "older sglang", "silent", "odd", "vllm before profiling"],
)
async def test_capacity_in_tokens_and_blocks(answers, capacity):
    async with engine(answers) as target:
        assert await kv_capacity(target) == capacity
