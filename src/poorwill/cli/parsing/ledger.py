"""Which ledger, and which period of it, a verb is about."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Self

from poorwill.cli.parsing.admin import ServedFleet, admin_site
from poorwill.cli.parsing.fleet import DEFAULT_FILE, FleetArgument, fleet_path
from poorwill.cli.parsing.options import Option, Values
from poorwill.cli.parsing.settings import read_fleet
from poorwill.compose.clock import SystemClock
from poorwill.compose.paths import ledger_path
from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.core.settings import FleetSettings
from poorwill.ledger.dates import Period, between, instant, period, spelled_out, zone_of
from poorwill.ledger.schema import LEDGER_FILE
from poorwill.telemetry.admin.client import copied_ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerOptions(ServedFleet):
    """A ledger, named by its fleet or by its own file, or of a fleet that another user or machine serves."""

    ledger: Annotated[
        str | None, Option("a ledger file, without its fleet", metavar="FILE", values=Values.FILES)
    ] = None

    async def here(self, env: Mapping[str, str]) -> Self:
        """Return the same ledger, as a copy if it is elsewhere. Raises OperatorFault if nobody gives one."""
        if self.url is None:
            return self
        return replace(self, url=None, ledger=await copied_ledger(admin_site(self, env), env))

    def settings(self, env: Mapping[str, str]) -> FleetSettings | None:
        """Return the fleet's settings; None if a ledger was named, or is here alone. Raises as `path`."""
        if self.url is not None:
            what = "what changes a ledger or its keys is done on the machine that serves the fleet"
            raise RequestFault(ErrorCode.INVALID_REQUEST, what, hint="leave --url out, and run it there")
        if self.ledger:
            return None
        unnamed = self.fleet == DEFAULT_FILE and not os.path.exists(fleet_path(self.fleet))
        return None if unnamed and os.path.exists(LEDGER_FILE) else read_fleet(self.fleet, env)

    def path(self, env: Mapping[str, str]) -> str:
        """Return the ledger's path. Raises ConfigFault for a faulty fleet, RequestFault if elsewhere."""
        if self.ledger and self.url is None:
            return self.ledger
        settings = self.settings(env)
        return ledger_path(settings) if settings else LEDGER_FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerArguments(LedgerOptions):
    """The same for verbs that are about nothing else: the fleet with or without `--fleet`."""

    fleet: FleetArgument = DEFAULT_FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodOptions:
    """A period of the ledger."""

    period: Annotated[
        str | None,
        Option(
            "2026-11, 2026-W48, 2026-Q4, 2026-11-24, today, last-week or FROM..TO",
            metavar="P",
            values=Values.PERIODS,
        ),
    ] = None
    begin: Annotated[str | None, Option("from this instant on", flag="--from", metavar="TIME")] = None
    end: Annotated[str | None, Option("up to this instant", flag="--to", metavar="TIME")] = None
    zone: Annotated[
        str, Option("whose days, weeks and months, such as Europe/Berlin (default: UTC)", metavar="ZONE")
    ] = "UTC"

    @property
    def given(self) -> list[str]:
        """Return the options that say something."""
        options = (("--period", self.period), ("--from", self.begin), ("--to", self.end))
        return [name for name, value in options if value is not None]

    def asked(self, *, last_us: int) -> Period | None:
        """Return the period that was asked for, None if none was. Raises RequestFault.

        `last_us` is the last instant the ledger knows of; an open period ends there.
        """
        zone = zone_of(self.zone)
        plain = partial(spelled_out, zone=zone, now_us=SystemClock.started().now_us())
        if self.period is not None:
            if len(self.given) > 1:
                what = "give --period or --from and --to, not both"
                raise RequestFault(ErrorCode.INVALID_REQUEST, what)
            return period(plain(self.period), zone)
        if not self.given:
            return None
        begin_us = instant(plain(self.begin), zone) if self.begin else 0
        end_us = instant(plain(self.end), zone) if self.end else max(last_us, begin_us + 1)
        return between(begin_us, end_us, zone)
