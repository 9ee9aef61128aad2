"""A program of its own: records spans for ever and prints the beginning of each one acknowledged."""

import asyncio
import sys

from poorwill.core.entries import ReplicaCreated, SpanOpened
from poorwill.ledger.ledger import open_ledger

START = 1_800_000_000 * 1_000_000


class Clock:
    def now_us(self):
        return START


class Quiet:
    def info(self, message, /, **fields):
        pass

    warning = error = info


async def main(path):
    async with open_ledger(path, clock=Clock(), log=Quiet()) as ledger:
        await ledger.record([ReplicaCreated(replica="a.0", model="a", driver="d", at_us=START)])
        at = START
        while True:
            burst = []
            for _ in range(5):
                at += 10
                entry = SpanOpened(replica="a.0", at_us=at, cause="serving")
                burst.append((at, ledger.record([entry])))
            for began, answer in burst:
                await answer
                sys.stdout.write(f"{began}\n")  # noqa: TID251
            sys.stdout.flush()  # noqa: TID251


asyncio.run(main(sys.argv[1]))  # noqa: TID251
