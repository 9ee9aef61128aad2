"""Tells the lives of `lives.py`: what came, what was done about it, and what changed.

After a wanted change of the machine write `lives.txt` anew, and read the difference:

    python -m tests.core.telling
"""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path

from poorwill.core.machine.effects import Record
from poorwill.core.machine.replica import Replica, next_descent_us
from poorwill.core.machine.step import step

from .lives import LIVES, Step
from .replicas import T0, S, due_us


def said(value: object, *, time: bool = False) -> str:
    """A value in short: times in seconds, from T0 if they are instants; what is as by default left out."""
    if time and isinstance(value, int):
        return f"{(value - T0 if value >= T0 else value) / S:g} s"
    if isinstance(value, Record):
        return said(value.entry)
    if isinstance(value, tuple):
        return f"({', '.join(said(item, time=time) for item in value)})"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {said(item, time=time)}' for key, item in value.items())}}}"
    if is_dataclass(value):
        given = ((field, getattr(value, field.name)) for field in fields(value))
        told = (
            f"{field.name.removesuffix('_us')}={said(item, time=field.name.endswith('_us'))}"
            for field, item in given
            if item not in ("m-0", "m")
            and (field.default is MISSING or item != field.default or field.name in ("replica", "model"))
        )
        return f"{type(value).__name__}({', '.join(told)})"
    return str(value)


def told(replica: Replica, steps: tuple[Step, ...]) -> Iterator[str]:
    """A life in lines: each step, what is to be done, what has changed, and when the next tick is due."""
    now = T0
    for after, what in steps:
        now += round(after * S)
        if isinstance(what, dict):
            replica = replica.changed(**what)  # type: ignore[arg-type]
            continue
        given = what(replica) if callable(what) else what
        before = replica
        replica, effects = step(before, given, now)
        yield f"  {said(now, time=True)}: {said(given)}"
        yield from (f"    {said(effect)}" for effect in effects)
        for name, value in vars(replica).items():
            if value != vars(before)[name]:
                yield f"    - {name.removesuffix('_us')} = {said(value, time=name.endswith('_us'))}"
        due = due_us(replica, now)
        tick = "none" if due is None else said(due, time=True)
        deeper_us = next_descent_us(replica)
        deeper = "" if deeper_us is None else f"; deeper at {said(deeper_us, time=True)}"
        yield f"    next tick: {tick}{deeper}; again in {replica.retry_after_s(now)} s"


def book() -> str:
    """All lives."""
    return "\n".join("\n".join((name, *told(begins(), steps), "")) for name, (begins, steps) in LIVES.items())


if __name__ == "__main__":
    Path(__file__).with_name("lives.txt").write_text(book(), "utf-8")
