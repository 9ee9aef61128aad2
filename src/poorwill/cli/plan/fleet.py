"""What is known of a model's tiers besides the flags: measured by its fleet, or predicted."""

import os

from poorwill.cli.parsing.fleet import DEFAULT_FILE, fleet_path
from poorwill.cli.parsing.prediction_options import fleet_host
from poorwill.cli.parsing.settings import read_fleet
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.plan.options import PlanOptions
from poorwill.cli.plan.planner_options import cost_options
from poorwill.compose.clock import SystemClock
from poorwill.compose.planning.known_models import model_tiers
from poorwill.core.errors import ErrorCode, RequestFault
from poorwill.planner.ladder import KnownTiers, predict_tiers


def known_tiers(options: PlanOptions, streams: Streams) -> KnownTiers:
    """Return what the figures on the command line predict, or what a fleet knows of the model named.

    A fleet is asked if --fleet names one, or if --model is a model of ./fleet.toml. Raises OperatorFault for
    impossible figures, ConfigFault for a fleet that cannot be read.
    """
    predicted, chosen = options.predicted, options.ledger
    if predicted.params is not None:
        machine = predicted.machine(fleet_host(chosen.fleet, streams.env))
        return predict_tiers(predicted.start(), machine, cost_options(options))
    given = predicted.given
    if given:
        raise RequestFault(
            ErrorCode.INVALID_REQUEST,
            f"{given[0]} needs --params",
            hint="how many parameters the model has, such as --params 70e9",
        )
    named = chosen.fleet != DEFAULT_FILE
    if chosen.ledger or not (named or (options.source.model and os.path.exists(fleet_path(chosen.fleet)))):
        return KnownTiers()
    fleet, wanted = read_fleet(chosen.fleet, streams.env), options.source.model
    if not named and wanted not in [model.name for model in fleet.models]:
        return KnownTiers()  # a fleet that nobody named need not have the model
    path, now_us = chosen.path(streams.env), SystemClock.started().now_us()
    return model_tiers(fleet, fleet.model_named(wanted), path, env=streams.env, now_us=now_us)
