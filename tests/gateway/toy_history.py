"""A past for gateway tests: answers in one line, and a count of how often it was asked."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import BinaryIO

from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.ledger.history.views import Costs, LogPiece, PastRequest, PastWake, Ribbon, Ribbons


@dataclass(slots=True)
class ToyHistory:
    asked: list[str] = field(default_factory=list)

    async def ribbons(self, from_us: int, to_us: int) -> Ribbons:
        self.asked.append("ribbons")
        row = Ribbon(replica="m1-0", model="m1", stretches=[(from_us, None, "linger", 7, 0)], wakes=[])
        return Ribbons(from_us=from_us, to_us=to_us, rows=[row])

    async def costs(self) -> Costs:
        self.asked.append("costs")
        return Costs(now_us=1, currency="USD", models=[], days=[(0, "linger", 5)], hours=[])

    async def wakes(self, model: str | None, last: int) -> Sequence[PastWake]:
        self.asked.append(f"wakes {model} {last}")
        return []

    async def requests(self, last: int) -> Sequence[PastRequest]:
        self.asked.append(f"requests {last}")
        return []

    async def cost(self, request: str) -> None:
        self.asked.append(f"cost {request}")

    async def plan(self, model: str) -> None:
        self.asked.append(f"plan {model}")

    async def explain(self, model: str, at_us: int) -> Sequence[str]:
        if model != "m1":
            raise RequestFault(ErrorCode.MODEL_NOT_FOUND, f"the ledger knows no model {model!r}")
        return [f"{model} at {at_us}"]

    async def compare(self, this: tuple[int, int], last: tuple[int, int]) -> Sequence[str]:
        return [f"{this} against {last}"]

    async def log(self, replica: str, start: int | None) -> LogPiece:
        return LogPiece(text=f"{replica} from {start}", next=9)

    async def copy(self) -> BinaryIO:
        self.asked.append("copy")
        return BytesIO(b"a ledger")
