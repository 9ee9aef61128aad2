"""Options of `poorwill plan` that contradict each other, or would be ignored: told before the work."""

import argparse
import os
from collections.abc import Iterator

from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.planner.report.drawing import kind_of


def check_asked(options: argparse.Namespace) -> None:
    """Raise RequestFault where options make no sense together, with everything that is wrong."""
    wrong = [*_sources(options), *_ignored(options)]
    if wrong:
        raise RequestFault(ErrorCode.INVALID_REQUEST, "; ".join(wrong), hint="poorwill plan --help")
    if options.plot:
        kind_of(options.plot)
        directory = os.path.dirname(options.plot) or os.curdir
        if not os.access(directory, os.W_OK):
            raise RequestFault(
                ErrorCode.INVALID_REQUEST,
                f"cannot write {options.plot}: {directory} is no folder that may be written to",
                hint="make it, or give another path",
            )


def _sources(options: argparse.Namespace) -> Iterator[str]:
    named = [
        ("--trace", options.trace is not None),
        # A pool of tenants takes the kind of its drawn traces from --synthetic.
        ("--synthetic", options.synthetic is not None and options.tenants is None),
        ("--from-ledger", options.from_ledger),
        ("--hours-per-day", options.hours_per_day is not None),
        ("--tenants", options.tenants is not None),
    ]
    given = [name for name, is_given in named if is_given]
    if len(given) > 1:
        yield f"{' and '.join(given)} are different plans"


def _ignored(options: argparse.Namespace) -> Iterator[str]:
    if not options.from_ledger:
        named = [("--period", options.period), ("--from", options.begin), ("--to", options.end)]
        for name, value in named:
            if value is not None:
                yield f"{name} is a period of the ledger, and goes with --from-ledger"
    if options.prices and not options.hosted:
        yield "--prices needs --hosted PROVIDER/MODEL, which row of it to take"
    if (options.prompt_tokens_s is None) != (options.output_tokens_s is None):
        yield "--prompt-tokens-s and --output-tokens-s are needed both, or service times stay constant"
    if not options.prompt_tokens and not options.output_tokens:
        yield "--prompt-tokens and --output-tokens are both 0: nothing to price"
    if options.plot and (options.tenants is not None or options.hours_per_day is not None):
        yield "--plot draws a plan from requests: --trace, --synthetic or --from-ledger"
