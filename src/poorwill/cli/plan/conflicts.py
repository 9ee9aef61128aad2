"""Refuses options of `poorwill plan` that contradict each other or would be ignored."""

import os
from collections.abc import Iterator

from poorwill.cli.plan.options import PlanOptions
from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.planner.report.drawing import kind_of


def check_asked(options: PlanOptions) -> None:
    """Raise RequestFault, with everything that is wrong, if options make no sense together."""
    wrong = [*_sources(options), *_ignored(options)]
    if wrong:
        raise RequestFault(ErrorCode.INVALID_REQUEST, "; ".join(wrong), hint="poorwill plan --help")
    plot = options.other.plot
    if plot:
        kind_of(plot)
        directory = os.path.dirname(plot) or os.curdir
        if not os.access(directory, os.W_OK):
            raise RequestFault(
                ErrorCode.INVALID_REQUEST,
                f"cannot write {plot}: {directory} is no folder that may be written to",
                hint="make it, or give another path",
            )


def _sources(options: PlanOptions) -> Iterator[str]:
    source, tenants = options.source, options.pool.tenants
    named = [
        ("--trace", source.trace is not None),
        # A pool of tenants takes the kind of its drawn traces from --synthetic.
        ("--synthetic", source.synthetic is not None and tenants is None),
        ("--from-ledger", source.from_ledger),
        ("--hours-per-day", source.hours_per_day is not None),
        ("--tenants", tenants is not None),
    ]
    given = [name for name, is_given in named if is_given]
    if len(given) > 1:
        yield f"{' and '.join(given)} are different plans"


def _ignored(options: PlanOptions) -> Iterator[str]:
    source, service, other = options.source, options.service, options.other
    if not source.from_ledger:
        for name in options.when.given:
            yield f"{name} is a period of the ledger, and goes with --from-ledger"
    if other.prices and not other.hosted:
        yield "--prices needs --hosted PROVIDER/MODEL, which row of it to take"
    if (service.prompt_tokens_s is None) != (service.output_tokens_s is None):
        yield "--prompt-tokens-s and --output-tokens-s need each other, or service times stay constant"
    if not other.prompt_tokens and not other.output_tokens:
        yield "--prompt-tokens and --output-tokens are both 0: nothing to price"
    if other.plot and (options.pool.tenants is not None or source.hours_per_day is not None):
        yield "--plot draws a plan from requests: --trace, --synthetic or --from-ledger"
