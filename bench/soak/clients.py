"""Clients with habits, over real sockets: patient, streaming, leaving. Each looks at what it is given."""

import collections
import contextlib
import http.client
import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fleet import BUDGET_S, Program

from poorwill.core.errors import ErrorCode

PROMPTS = ("The common poorwill", "Why do birds", "One two three", "Sleep is", "Rock and", "In winter the")
PATIENCE_S = BUDGET_S + 40
"""The budget of a wake, and what a crowded machine may add to an answer."""
CODES = frozenset(ErrorCode) - {ErrorCode.INTERNAL, ErrorCode.CONFIG_INVALID, ErrorCode.INVALID_REQUEST}


@dataclass
class Crowd:
    """Everybody who asks, and what became of it."""

    program: Program
    seed: int
    broken: Callable[[str], None]
    right: dict[tuple[str, str], str] = field(default_factory=dict)
    ends: collections.Counter[str] = field(default_factory=collections.Counter)
    over: threading.Event = field(default_factory=threading.Event)
    pause: threading.Event = field(default_factory=threading.Event)
    busy: int = 0
    slowest_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    def learn(self) -> None:
        """Ask everything twice of engines that nothing has happened to yet."""
        for model in self.program.models:
            for prompt in PROMPTS:
                for stream in (False, True):
                    text, why = self._ask(model, prompt, stream=stream, limit_s=120)
                    known = self.right.setdefault((model, prompt), text)
                    if why or text != known:
                        raise SystemExit(f"the engine itself answers now {known!r}, now {text!r} {why}")

    def begin(self, count: int) -> None:
        for number in range(count):
            thread = threading.Thread(target=self._live, args=(random.Random(f"{self.seed}/{number}"),))
            self._threads.append(thread)
        self._threads.append(threading.Thread(target=self._operate, args=(random.Random(self.seed),)))
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join()

    def _operate(self, chance: random.Random) -> None:
        """Park what is idle, as an operator does: also after a failed park, which otherwise means a pause."""
        while not self.over.is_set():
            model, pause_s = chance.choice(self.program.models), chance.uniform(0.2, 1.2)
            self.over.wait(pause_s)
            self.park(model)

    def park(self, model: str) -> None:
        """Ask for a park."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", self.program.admin, timeout=PATIENCE_S)
            with contextlib.closing(connection):
                connection.request("POST", f"/models/{model}/park")
                json.loads(connection.getresponse().read())

    def _live(self, chance: random.Random) -> None:
        while not self.over.is_set():
            gap_s = chance.choice((0, 0.02, 0.1, 0.3, 0.8)) * chance.random()
            model, prompt = chance.choice(self.program.models), chance.choice(PROMPTS)
            stream, leaves = chance.random() < 0.5, chance.random() < 0.15
            leave_s = chance.choice((0.01, 0.1, 0.5)) * chance.random()
            self.over.wait(gap_s)
            if self.pause.is_set() or not self.program.up.is_set():
                self.over.wait(0.05)
                continue
            with self._lock:
                self.busy += 1
            try:
                self._once(model, prompt, stream, leave_s if leaves else None)
            finally:
                with self._lock:
                    self.busy -= 1

    def _once(self, model: str, prompt: str, stream: bool, leave_s: float | None) -> None:
        began = time.monotonic()  # noqa: TID251
        text, why = self._ask(model, prompt, stream=stream, limit_s=leave_s or PATIENCE_S)
        took_s = time.monotonic() - began  # noqa: TID251
        child = self.program.child  # its own end is noticed elsewhere, once
        down = self.program.was_down(began) or (child is not None and child.poll() is not None)
        if leave_s is not None and why == "time out":
            end = "left"
        elif why in CODES:
            end = why
        elif why:
            end = "cut while poorwill was down" if down else why
            if not down and why != "cut after 200":
                self.broken(f"{model} {prompt!r} stream={stream}: {why} after {took_s:.2f} s {text[:300]!r}")
        elif text != self.right[model, prompt]:
            end = "wrong"
            self.broken(f"{model} {prompt!r}: {text!r} is not {self.right[model, prompt]!r}")
        else:
            end = "right"
        with self._lock:
            self.ends[end] += 1
            if leave_s is None and not down:
                self.slowest_s = max(self.slowest_s, took_s)

    def _ask(self, model: str, prompt: str, *, stream: bool, limit_s: float) -> tuple[str, str]:
        """Return the text, and what was wrong with the answer: an error code, or words."""
        body = {"model": model, "prompt": prompt, "max_tokens": 12, "temperature": 0, "stream": stream}
        connection = http.client.HTTPConnection("127.0.0.1", self.program.port, timeout=limit_s)
        status, text = 0, ""
        try:
            connection.request(
                "POST",
                "/v1/completions",
                json.dumps(body | {"cache_prompt": False}),
                {"content-type": "application/json", "connection": "close"},
            )
            answer = connection.getresponse()
            status = answer.status
            if status != 200 or not stream:
                text = answer.read().decode("utf-8", "replace")
                document = json.loads(text)
                if status != 200:
                    return text, str(document["error"]["code"])
                return str(document["choices"][0]["text"]), ""
            return _streamed(answer)
        except TimeoutError:
            return text, "time out"
        except (http.client.IncompleteRead, ConnectionError, http.client.HTTPException) as error:
            return text, "cut after 200" if status == 200 else f"cut: {error!r}"
        except (ValueError, KeyError, TypeError):
            return text, "cut after 200" if status == 200 and not text.strip() else f"no answer: {status}"
        finally:
            with contextlib.suppress(OSError):
                connection.close()


def _streamed(answer: http.client.HTTPResponse) -> tuple[str, str]:
    text, done = "", False
    for line in answer:
        if not line.startswith(b"data:"):
            continue
        if done:
            return text, "more after the end"
        data = line[5:].strip()
        if data == b"[DONE]":
            done = True
            continue
        event = json.loads(data)
        if "error" in event:
            return text, str(event["error"]["code"])
        text += "".join(choice.get("text", "") for choice in event["choices"])
    return text, "" if done else "cut after 200"
