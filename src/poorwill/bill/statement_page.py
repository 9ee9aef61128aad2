"""A customer's statement as one HTML page, fit to send: it prints on one sheet and reads on a telephone.

Amounts have the digits that matter. They are rounded together, so that every row and column still adds up.
"""

import html
from collections import defaultdict
from collections.abc import Iterable, Sequence
from importlib.resources import files

from poorwill.bill.statement import Statement, StatementLine
from poorwill.core.format import duration, symbol
from poorwill.core.money import NUSD, apportion

_CENTS = 2
_MOST_DECIMALS = 9


def as_page(found: Statement) -> str:
    """Return a statement as one HTML page without anything to fetch."""
    decimals = _decimals(found.nusd)
    style = files("poorwill.bill").joinpath("statement.css").read_text()
    title = f"Statement {html.escape(found.number)}"
    owed = "Amount due" if found.final else "So far"
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f"<style>{style}</style>\n</head>\n<body>\n<header>\n<address>{_lines(found.terms.issuer)}</address>\n"
        f"<h1>Statement</h1>\n</header>\n{_particulars(found)}\n"
        f'<p class="due"><span>{owed}</span> <strong>{_shown(_total(found, _CENTS), _CENTS, found)}'
        f"</strong></p>\n{_models(found, decimals)}\n{_days(found, decimals)}\n"
        f"<footer>\n<ul>{''.join(f'<li>{html.escape(note)}</li>' for note in _notes(found, decimals))}</ul>\n"
        f"<p>{_lines(found.terms.terms)}</p>\n</footer>\n</body>\n</html>\n"
    )


def _particulars(found: Statement) -> str:
    rows = [("Number", found.number), ("For", found.key), ("Period", found.when)]
    if found.due:
        rows.append(("Due", found.due))
    if not found.final:
        rows.append(("Not final", found.known))
    cells = "".join(f"<div><dt>{name}</dt><dd>{html.escape(text)}</dd></div>" for name, text in rows)
    return f"<dl>{cells}</dl>"


def _models(found: Statement, decimals: int) -> str:
    """Return the table of models, whose amounts are rounded together."""
    by_model = defaultdict[str, list[StatementLine]](list)
    for line in found.lines:
        by_model[line.model].append(line)
    kinds = ["serving_nusd", "wake_nusd", *(["hosted_nusd"] if found.hosted else [])]
    exact = [sum(getattr(line, kind) for line in lines) for lines in by_model.values() for kind in kinds]
    rounded = apportion(exact, 10 ** (_MOST_DECIMALS - decimals))
    head = ("Model", "Requests", "Tokens in", "Tokens out", "Computing", "Starting")
    head = (*head, *(("Other APIs",) if found.hosted else ()), "Total")
    rows = []
    for number, (model, lines) in enumerate(by_model.items()):
        amounts = rounded[number * len(kinds) : (number + 1) * len(kinds)]
        spent = [sum(line.serving_us for line in lines), sum(line.wake_us for line in lines)]
        times = [f" <small>{duration(us)}</small>" for us in spent] + [""]
        counts = (sum(getattr(line, name) for line in lines) for name in _COUNTS)
        cells = [html.escape(model), *(f"{count:,}" for count in counts)]
        cells += [
            f"<span>{_shown(part, decimals, found)}</span>{time}"
            for part, time in zip(amounts, times, strict=False)
        ]
        rows.append(_row([*cells, _shown(sum(amounts), decimals, found)], head))
    total = _shown(sum(rounded), decimals, found)
    names = "".join(f'<th scope="col">{name}</th>' for name in head)
    return (
        f"<table>\n<thead><tr>{names}</tr></thead>\n<tbody>\n{''.join(rows)}</tbody>\n"
        f'<tfoot><tr><th scope="row" colspan="{len(head) - 1}">Total</th>'
        f'<td data-label="Total">{total}</td></tr></tfoot>\n</table>'
    )


def _row(cells: Sequence[str], head: Sequence[str]) -> str:
    first, *rest = cells
    others = "".join(
        f'<td data-label="{name}">{cell}</td>' for name, cell in zip(head[1:], rest, strict=True)
    )
    return f'<tr><th scope="row">{first}</th>{others}</tr>\n'


def _days(found: Statement, decimals: int) -> str:
    by_day = defaultdict[str, list[StatementLine]](list)
    for line in found.lines:
        by_day[line.day].append(line)
    exact = [sum(line.nusd for line in lines) for lines in by_day.values()]
    amounts = apportion(exact, 10 ** (_MOST_DECIMALS - decimals))
    rows = "".join(
        f"<li><span>{day}</span> <span>{sum(line.requests for line in lines):,}</span>"
        f" <span>{_shown(amount, decimals, found)}</span></li>"
        for (day, lines), amount in zip(by_day.items(), amounts, strict=True)
    )
    return f"<h2>By day: requests and amount</h2>\n<ol>{rows}</ol>" if rows else "<p>Nothing was used.</p>"


def _notes(found: Statement, decimals: int) -> Iterable[str]:
    unit = _shown(1, decimals, found)
    yield from found.notes
    yield f"Amounts are rounded to {unit} so that they add up."


def _decimals(nusd: int) -> int:
    """Return how many decimals show four digits of an amount; cents are enough from one dollar on."""
    if nusd >= NUSD or not nusd:
        return _CENTS
    return next(d for d in range(_CENTS, _MOST_DECIMALS + 1) if nusd * 10**d >= 1000 * NUSD or d == 9)


def _total(found: Statement, decimals: int) -> int:
    return sum(apportion([found.nusd], 10 ** (_MOST_DECIMALS - decimals)))


def _shown(units: int, decimals: int, found: Statement) -> str:
    whole, rest = divmod(abs(units), 10**decimals)
    sign = "-" if units < 0 else ""
    return html.escape(f"{sign}{symbol(found.currency)}{whole:,}.{rest:0{decimals}d}")


def _lines(text: str) -> str:
    return "<br>".join(html.escape(line.strip()) for line in text.strip().splitlines())


_COUNTS = ("requests", "tokens_in", "tokens_out")
