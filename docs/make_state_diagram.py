"""Draws the life of a replica from `core.machine.lifecycle.TRANSITIONS` into docs/READING.md, so that the
picture cannot lie. `python docs/make_state_diagram.py` rewrites it; `--check` only says whether it is true.
"""

import sys
from collections import defaultdict
from pathlib import Path

from poorwill.core.machine.lifecycle import TRANSITIONS, State

BEGIN, END = "<!-- state diagram: begin -->\n", "<!-- state diagram: end -->"


def diagram() -> str:
    """Return the diagram as a Mermaid block: one arrow a pair of states, labelled with what leads there."""
    arrows: dict[tuple[State, State], list[str]] = defaultdict(list)
    for (state, kind), following in TRANSITIONS.items():
        for after in sorted(following - {state}):
            arrows[state, after].append(kind)
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> parked"]
    lines += [
        f"    {before} --> {after}: {', '.join(kinds)}" for (before, after), kinds in sorted(arrows.items())
    ]
    return "\n".join([*lines, "```", ""])


def main(arguments: list[str]) -> int:
    """Rewrite or check the diagram in READING.md; 1 where a check finds it stale."""
    path = Path(__file__).with_name("READING.md")
    text = path.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    drawn = head + BEGIN + diagram() + END + tail
    if arguments == ["--check"]:
        return int(drawn != text)
    path.write_text(drawn, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))  # noqa: TID251
