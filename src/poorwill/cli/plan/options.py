"""The options of `poorwill plan`, and what they say about the world, as the planner's own values."""

import argparse
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from itertools import chain
from zoneinfo import ZoneInfo

from poorwill.cli.parsing.model_options import add_figures
from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.money import nusd
from poorwill.core.policy import FloorSchedule
from poorwill.core.settings import FloorSettings, FloorWindow
from poorwill.core.weekdays import minute_of_day, weekdays_in
from poorwill.core.words import SECOND_US, Tier
from poorwill.planner.ladder import TierOverride
from poorwill.planner.report.verdict import WorkNeeds
from poorwill.planner.traces.synthetic import KINDS
from poorwill.policies import make_floor

EPILOG = """\
examples:
  poorwill plan --hours-per-day 4 --active-usd-h 3.80
  poorwill plan --trace requests.csv --active-usd-h 3.80 --wake-s 95 --park-s 20 --idle-s 300
  poorwill plan --synthetic office-hours --active-usd-h 3.80 --plot plan.html
  poorwill plan --synthetic bursty --active-usd-h 3.80 --params 8e9 --tier frozen --tier cold
  poorwill plan --from-ledger
  poorwill plan --tenants 1000 --hosts 4,8,16 --active-usd-h 3.80 --wake-s 12
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare every option of the verb but --json and --fleet."""
    what = parser.add_argument_group("what to plan from")
    what.add_argument("--trace", metavar="FILE", help="requests: CSV, JSON, JSON lines or a server's log")
    what.add_argument(
        "--columns", metavar="ROLE=COLUMN[:UNIT],...",
        help="what the trace's columns mean, such as arrival=ts:ms,service=took,model=name",
    )  # fmt: skip
    what.add_argument("--synthetic", choices=[*KINDS], help="draw a trace instead")
    what.add_argument(
        "--requests-per-day",
        type=_positive,
        default=60.0,
        metavar="N",
        help="of a drawn trace (default: 60)",
    )
    what.add_argument("--seed", type=_natural, default=1, metavar="N", help="of the drawn trace (default: 1)")
    what.add_argument("--from-ledger", action="store_true", help="the fleet's own requests")
    what.add_argument("--hours-per-day", metavar="H", help="no trace: so many hours of use a day")
    what.add_argument("--wakes-per-day", default="0", metavar="N", help="with --hours-per-day")
    what.add_argument(
        "--model",
        metavar="NAME",
        help="only this model's requests; of --fleet: whose wakes and rates",
    )
    what.add_argument(
        "--one-replica", action="store_true", help="serve all models of the trace by one replica"
    )
    what.add_argument("--span-s", type=_span, metavar="S", help="length of the account (default: to the end)")
    what.add_argument("--origin", type=_date, metavar="DATE", help="the trace's origin, for prices and hours")
    what.add_argument(
        "--bad-rows", choices=("skip", "refuse"), default="skip", help="each is told with its line"
    )
    _add_costs(parser)
    add_figures(parser.add_argument_group("a model to predict wakes of, where none is given or measured"))
    _add_service(parser)
    _add_alternatives(parser)
    _add_pool(parser)


def _add_costs(parser: argparse.ArgumentParser) -> None:
    costs = parser.add_argument_group("what it costs")
    costs.add_argument("--active-usd-h", type=_money, metavar="USD", help="an hour of a ready replica")
    costs.add_argument(
        "--parked-usd-h", type=_money, default=0, metavar="USD", help="an hour of a parked one"
    )
    costs.add_argument(
        "--wake-s", type=_durations, nargs="+", metavar="S[,S...]",
        help="how long a wake takes; of several the n-th wake takes the n-th (default: as measured or "
        "predicted, where --fleet or --params tell, else 95)",
    )  # fmt: skip
    costs.add_argument("--park-s", type=us, default=20 * SECOND_US, metavar="S", help="default: 20")
    costs.add_argument("--cold-wake-s", type=_durations, metavar="S[,S...]", help="adds a cold tier below")
    costs.add_argument("--cold-park-s", type=us, default=10 * SECOND_US, metavar="S", help="default: 10")
    costs.add_argument(
        "--tier", type=_tier, action="append", default=[], metavar="TIER[:WAKE_S[:PARK_S[:USD_H]]]",
        help="a tier of the ladder, such as frozen:2.5:4:0.01; a wake left out (frozen, frozen::4) is "
        "measured or predicted, the rest is --park-s and --parked-usd-h",
    )  # fmt: skip
    costs.add_argument(
        "--wait-usd-s", type=_money, default=0, metavar="USD", help="what a held second is worth"
    )


def _add_service(parser: argparse.ArgumentParser) -> None:
    service = parser.add_argument_group("how requests are served")
    service.add_argument(
        "--idle-s",
        type=_durations,
        nargs="+",
        action="extend",
        default=[],
        metavar="S[,S...]",
        help="a fixed idle time to judge",
    )
    service.add_argument("--service-s", type=us, default=30 * SECOND_US, metavar="S", help="default: 30")
    service.add_argument("--prompt-tokens-s", type=_positive, metavar="R", help="rate of reading a prompt")
    service.add_argument("--output-tokens-s", type=_positive, metavar="R", help="rate of writing an answer")
    service.add_argument("--max-concurrency", type=int, default=0, metavar="N", help="default: unlimited")
    service.add_argument(
        "--floor", action="append", default=[], metavar="WHEN",
        help="keep ready: always, or such as 'mon-fri 09:00-18:00 Europe/Berlin'",
    )  # fmt: skip


def _add_alternatives(parser: argparse.ArgumentParser) -> None:
    other = parser.add_argument_group("alternatives and work_needs")
    other.add_argument("--hosted", metavar="PROVIDER/MODEL", help="the hosted API to compare with")
    other.add_argument("--prices", metavar="FILE", help="a price table of one's own for --hosted")
    other.add_argument(
        "--prompt-tokens", type=_natural, default=1500, metavar="N", help="where the trace has none"
    )
    other.add_argument(
        "--output-tokens", type=_natural, default=300, metavar="N", help="where the trace has none"
    )
    other.add_argument("--compliance", action="store_true", help="a certified platform is required")
    other.add_argument("--hard-real-time", action="store_true", help="no request may ever wait")
    other.add_argument("--horizontal", action="store_true", help="work for many machines at once")
    other.add_argument("--load-rps-one-box", type=_positive, metavar="R", help="what one box can serve")
    other.add_argument("--plot", metavar="FILE", help="draw into a .png, .svg or .html")


def _add_pool(parser: argparse.ArgumentParser) -> None:
    pool = parser.add_argument_group("a fleet on paper: tenants that share a pool of hosts")
    pool.add_argument("--tenants", type=int, metavar="N", help="draw so many tenants")
    pool.add_argument(
        "--hosts",
        type=_counts,
        metavar="N[,N...]",
        help="sizes of the pool to try (default: several)",
    )
    pool.add_argument("--host-gb", type=_positive, default=80.0, metavar="GB", help="default: 80")
    pool.add_argument(
        "--tenant-gb", type=_sizes, default=(16.0, 24.0, 40.0), metavar="GB[,GB...]",
        help="sizes of the tenants' models, in turn (default: 16,24,40)",
    )  # fmt: skip


def floor_of(options: argparse.Namespace) -> FloorSchedule | None:
    """Return the floor that --floor asks for, None where it does not."""
    if not options.floor:
        return None
    if "always" in options.floor:
        return make_floor(FloorSettings(always=True), zone_of=ZoneInfo)
    windows = tuple(_window(text) for text in options.floor)
    return make_floor(FloorSettings(windows=windows), zone_of=ZoneInfo)


def _window(text: str) -> FloorWindow:
    """Read 'mon-fri 09:00-18:00 Europe/Berlin'. Raises RequestFault with an example."""
    try:
        days, hours, zone = text.split()
        start, stop = (minute_of_day(part) for part in hours.split("-"))
        on = tuple(sorted(weekdays_in(days)))
        ZoneInfo(zone)
    except (ValueError, KeyError):
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"--floor {text!r} is no window of the week",
            hint="such as 'mon-fri 09:00-18:00 Europe/Berlin', or always",
        ) from None
    return FloorWindow(days=on, start_minute=start, end_minute=stop, zone=zone, name=text)


def work_needs(options: argparse.Namespace) -> WorkNeeds:
    """Return what the user said about the work."""
    return WorkNeeds(
        compliance=options.compliance,
        hard_real_time=options.hard_real_time,
        horizontal=options.horizontal,
        rps_one_box=options.load_rps_one_box,
        hosted_named=options.hosted is not None,
    )


def flat(lists: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """Return several lists of durations, given as words or with commas, as one."""
    return tuple(chain.from_iterable(lists))


def us(text: str) -> int:
    """Read seconds as microseconds, for argparse."""
    try:
        seconds = Decimal(text)
    except InvalidOperation:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not seconds.is_finite() or not 0 <= seconds <= 10**10:
        raise argparse.ArgumentTypeError(f"{text!r} is not a sensible number of seconds")
    return round(seconds * SECOND_US)


def _span(text: str) -> int:
    length = us(text)
    if not length:
        raise argparse.ArgumentTypeError("a span of 0 seconds has no requests")
    return length


def _natural(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value < 2**40:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return value


def _durations(text: str) -> tuple[int, ...]:
    return tuple(us(part) for part in text.split(","))


def _money(text: str) -> int:
    try:
        amount = nusd(text)
    except (InvalidOperation, OverflowError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount in dollars") from None
    if amount < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is negative")
    return amount


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e12:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def _counts(text: str) -> tuple[int, ...]:
    try:
        counts = tuple(int(part) for part in text.split(","))
    except ValueError:
        counts = (0,)
    if min(counts) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers of hosts, such as 4,8,16")
    return counts


def _sizes(text: str) -> tuple[float, ...]:
    return tuple(_positive(part) for part in text.split(","))


def _tier(text: str) -> TierOverride:
    name, *rest = text.split(":")
    if name not in set(Tier) or len(rest) > 3:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not TIER:WAKE_S:PARK_S:USD_H; tiers: {', '.join(Tier)}"
        )
    wake, park, parked = (*rest, "", "", "")[:3]
    return TierOverride(
        tier=Tier(name),
        wake_us=_durations(wake) if wake else (),
        park_us=us(park) if park else None,
        parked_nusd_h=_money(parked) if parked else None,
    )


def _date(text: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date, such as 2026-01-05") from None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
