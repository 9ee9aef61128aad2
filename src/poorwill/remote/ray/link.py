"""The program that speaks to Ray for the controller: one line of JSON in, one out, on stdin and stdout.

A process of its own, because Ray ends a process whose cluster is lost for a minute. It ends with its stdin.
Run as `python -m poorwill.remote.ray.link HEAD NAMESPACE`.
"""

import asyncio
import base64
import json
import logging
import os
import sys
from typing import Any, TextIO

from poorwill.remote.ray.carrier import Carrier
from poorwill.remote.ray.node import LABEL, UNIT


class RayLink:
    """What the controller may ask of Ray."""

    def __init__(self, ray: Any, namespace: str) -> None:
        self.ray = ray
        self.groups = ray.util
        self.namespace = namespace
        self.turns: dict[str, asyncio.Lock] = {}
        """Of each place: it is given back before it is taken again."""

    def carrier(self, host: str) -> Any:
        """Return the actor of a host; the first to ask has it made."""
        make = self.ray.remote(Carrier).options(
            name=f"carrier-{host}",
            namespace=self.namespace,
            get_if_exists=True,
            lifetime="detached",
            max_restarts=-1,
            max_concurrency=1000,
            num_cpus=0,
            label_selector={LABEL: host},
        )
        return make.remote()

    async def do(self, asked: dict[str, Any]) -> Any:
        """Do one thing. Raises whatever Ray does."""
        match asked["do"]:
            case "call":
                actor = await asyncio.to_thread(self.carrier, asked["host"])
                reference = actor.carry.remote(base64.b64decode(asked["call"]))
                try:
                    return base64.b64encode(await reference).decode()
                except asyncio.CancelledError:
                    self.ray.cancel(reference)
                    raise
            case "lease":
                async with self.turns.setdefault(asked["name"], asyncio.Lock()):
                    return await asyncio.to_thread(self.lease, asked)
            case "release":
                async with self.turns.setdefault(asked["name"], asyncio.Lock()):
                    await asyncio.to_thread(self.release, asked["name"])
            case "hosts":
                return await asyncio.to_thread(self.hosts)
            case "clear":
                await asyncio.to_thread(self.clear)
        return None

    def lease(self, asked: dict[str, Any]) -> bool:
        """Take a place on a host; return whether it was granted in time."""
        name = f"{self.namespace}/{asked['name']}"
        self.release(asked["name"])
        group = self.groups.placement_group(
            [{UNIT: 1, **asked["needs"]}],
            name=name,
            lifetime="detached",
            bundle_label_selector=[{LABEL: asked["host"]}],
        )
        granted: bool = group.wait(asked["wait_s"])
        if not granted:
            self.groups.remove_placement_group(group)
        return granted

    def release(self, name: str) -> None:
        """Give a place back, if it is held."""
        try:
            group = self.groups.get_placement_group(f"{self.namespace}/{name}")
        except ValueError:
            return
        self.groups.remove_placement_group(group)

    def clear(self) -> None:
        """Give back every place of the fleet: those that are needed are taken anew."""
        for each in self.groups.placement_group_table().values():
            namespace, _, name = each["name"].partition("/")
            if namespace == self.namespace and each["state"] != "REMOVED":
                self.release(name)

    def hosts(self) -> list[str]:
        """Return the hosts that Ray knows to live."""
        alive = [node.get("Labels", {}) for node in self.ray.nodes() if node["Alive"]]
        return [labels[LABEL] for labels in alive if LABEL in labels]


async def work(link: RayLink, answers: TextIO) -> None:
    """Answer calls until stdin ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=64 * 2**20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    under_way: dict[int, asyncio.Task[None]] = {}

    async def answer(asked: dict[str, Any]) -> None:
        number = asked["id"]
        try:
            done = {"id": number, "ok": await link.do(asked)}
        except BaseException as error:
            done = {"id": number, "error": _in_one_line(error)}
        answers.write(json.dumps(done) + "\n")
        del under_way[number]

    answers.write(json.dumps({"id": 0, "ok": True}) + "\n")
    while text := await reader.readline():
        asked = json.loads(text)
        if asked["do"] == "cancel":
            if (task := under_way.get(asked["of"])) is not None:
                task.cancel()
            continue
        under_way[asked["id"]] = loop.create_task(answer(asked))


def _in_one_line(error: BaseException) -> str:
    """Return the cause: the text of a RayTaskError is a whole traceback that ends with it."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[-1]}"[:2000]


def main() -> None:
    """Join the cluster and work. What Ray prints, also in C++, goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    import ray

    head, namespace = sys.argv[1:]
    ray.init(
        address=head,
        namespace=namespace,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=False,
    )
    asyncio.run(work(RayLink(ray, namespace), answers))
    os._exit(0)  # Ray's own shutdown waits for a head that may be gone


if __name__ == "__main__":
    main()
