"""Draws what the demo printed as docs/demo.svg, legible in light and dark:

./dev demo 2>&1 | python docs/make_demo_picture.py [FIRST_LINE_STARTS_WITH]
"""

import sys
from html import escape
from pathlib import Path

FONT, LINE, PAD = 13, 18, 16


def svg(lines: list[str]) -> str:
    """Return the lines as an SVG picture of a terminal."""
    width = max(map(len, lines)) * FONT * 0.61 + 2 * PAD
    height = len(lines) * LINE + 2 * PAD
    rows = "".join(
        f'<text x="{PAD}" y="{PAD + (n + 0.8) * LINE:.0f}" xml:space="preserve">{escape(line)}</text>'
        for n, line in enumerate(lines)
    )
    style = (
        "rect{fill:#fbfbfa;stroke:#d8d8d4}text{fill:#1d2327;font:"
        f"{FONT}px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace}}"
        "@media(prefers-color-scheme:dark){rect{fill:#14181c;stroke:#333a41}text{fill:#dfe5ea}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" '
        f'width="{width:.0f}" height="{height}" role="img" aria-label="The end of poorwill demo">'
        f'<style>{style}</style><rect x="0.5" y="0.5" width="{width - 1:.0f}" height="{height - 1}" '
        f'rx="8"/>{rows}</svg>\n'
    )


def main(arguments: list[str]) -> int:
    """Read the demo's output from stdin; write the picture beside this file."""
    lines = [line.rstrip() for line in sys.stdin.read().splitlines()]
    if arguments:
        first = next(n for n, line in enumerate(lines) if line.startswith(arguments[0]))
        lines = lines[first:]
    Path(__file__).with_name("demo.svg").write_text(svg(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))  # noqa: TID251
