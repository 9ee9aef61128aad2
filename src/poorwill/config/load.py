"""`load_fleet`: from a path to `FleetSettings`, or to a `ConfigFault` with every problem at once."""

import os.path
import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from poorwill.config.cloud_rules import check_cloud, check_clouds
from poorwill.config.document import LOST, parse
from poorwill.config.fleet_fields import FLEET, GATEWAY, RATE, SPEND
from poorwill.config.kinds import nearest, toml_name
from poorwill.config.lines import Lines
from poorwill.config.machine import WeightsFault, check_machine, no_fault
from poorwill.config.model_fields import MODEL
from poorwill.config.places import absolute
from poorwill.config.rules import (
    EngineOptions,
    ModelSheet,
    check_fleet,
    check_model,
    check_options,
)
from poorwill.config.sections import MODEL_NAME, TITLES, WRITTEN_IN
from poorwill.config.sheet import Bad, Place, Sheet
from poorwill.config.tables import Group, Values
from poorwill.core.errors import ConfigFault, Problem
from poorwill.core.settings import (
    EngineSettings,
    FleetSettings,
    GatewaySettings,
    ModelSettings,
    RateSettings,
    SpendSettings,
)
from poorwill.core.words import ModelName


def load_fleet(
    path: str,
    env: Mapping[str, str],
    *,
    machine: bool = True,
    engine_options: EngineOptions = MappingProxyType({}),
    weights_fault: WeightsFault = no_fault,
) -> FleetSettings:
    """Read a fleet's configuration file.

    Relative paths in it count from its own directory; the fleet directory is that directory unless it
    says otherwise. `machine` also checks what must exist on this machine to serve: model files and the
    environment variables that hold secrets. Verbs that only look at a fleet leave that out.
    `engine_options` are the options that each kind of engine knows; what is not in there is not checked.
    `weights_fault` tells, with `machine`, what is wrong with a model's file that begins as it should.

    Raises ConfigFault with every problem found. Opens no file but this one and the beginnings of models.
    """
    document = parse(_text(path))
    base = os.path.dirname(os.path.abspath(path))
    sheet = Sheet(
        lines=document.lines,
        base=base,
        home=env.get("HOME", ""),
        problems=list(document.faults),
        partial=bool(document.faults),
        written_in=WRITTEN_IN,
    )
    reading = _Reading(document.table, sheet, engine_options)
    fleet = reading.fleet(os.path.basename(path))
    if machine:
        check_machine(fleet, sheet, env, weights_fault=weights_fault)
    if sheet.problems:
        raise ConfigFault(sheet.in_order(), source=path)
    return fleet


def lines_of(path: str) -> Lines:
    """Return the lines of a configuration file's keys. Raises ConfigFault where it cannot be read."""
    return parse(_text(path)).lines


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigFault([_unreadable(error)], source=path) from error


def _unreadable(error: OSError | UnicodeDecodeError) -> Problem:
    if isinstance(error, UnicodeDecodeError):
        return Problem(where="the file", what="is not UTF-8 text", hint="TOML files are UTF-8")
    if isinstance(error, FileNotFoundError):
        hint = "poorwill init writes one; --fleet FLEET names another"
        return Problem(where="the file", what="does not exist", hint=hint)
    return Problem(where="the file", what=f"cannot be read: {error.strerror}")


class _Reading:
    """One pass over a document's tables."""

    def __init__(self, table: dict[str, object], sheet: Sheet, engine_options: EngineOptions) -> None:
        self._table = table
        self._sheet = sheet
        self._engine_options = engine_options

    def fleet(self, source: str) -> FleetSettings:
        """Return the settings, as far as they could be read; everything wrong is on the sheet."""
        self._check_sections()
        values = self._values("fleet", FLEET)
        values.setdefault("directory", self._sheet.base)
        defaults = self._values("defaults", MODEL)
        gateway: GatewaySettings = GATEWAY.assemble(self._values("gateway", GATEWAY))
        spend: SpendSettings = SPEND.assemble(self._values("spend", SPEND))
        rates = self._rates()
        fleet: FleetSettings = FLEET.assemble(
            values,
            models=self._models(defaults),
            gateway=gateway,
            rates=rates,
            spend=replace(spend, currency=rates[0].currency) if rates else spend,
            source=source,
        )
        check_fleet(fleet, self._sheet)
        check_clouds(fleet, self._sheet)
        return fleet

    def _check_sections(self) -> None:
        for key, value in self._table.items():
            if key not in TITLES and not key.startswith(LOST):
                hint = self._sheet.belongs(key) or nearest(key, TITLES)
                what = "unknown table" if isinstance(value, dict | list) else "unknown key"
                self._sheet.wrong((key,), what, hint)

    def _values(self, name: str, group: Group) -> Values:
        values = group.values(self._table.get(name, {}), Place((name,), self._sheet))
        return {} if isinstance(values, Bad) else values

    def _models(self, defaults: Values) -> tuple[ModelSettings, ...]:
        place = Place(("models",), self._sheet)
        tables = self._table.get("models", {})
        if not isinstance(tables, dict):
            place.wrong(f"must be tables, not {toml_name(tables)}", "write [models.NAME]")
            return ()
        if not tables and not self._sheet.partial:
            place.wrong("no model is configured", "write [models.NAME]")
        return tuple(self._model(name, table, place / name, defaults) for name, table in tables.items())

    def _model(self, name: str, table: object, place: Place, defaults: Values) -> ModelSettings:
        if not re.fullmatch(MODEL_NAME, name):
            hint = "letters, digits and . _ - : / @ +, at most 128, a letter or digit first"
            place.wrong("is not a name for a model", hint)
        own = MODEL.values(table, place)
        values = MODEL.laid_over(defaults, {} if isinstance(own, Bad) else own)
        model: ModelSettings = MODEL.assemble(
            values, name=ModelName(name), **{"replica.model": ModelName(name)}
        )
        model = replace(model, engine=self._found(model.engine))
        here = ModelSheet(name=name, sheet=self._sheet)
        check_model(model, here)
        check_cloud(model, here)
        check_options(model, here, self._engine_options.get(model.engine.kind))
        return model

    def _found(self, engine: EngineSettings) -> EngineSettings:
        """Return the engine with an absolute path, unless the path is a model id of the hub."""
        path = absolute(engine.path, self._sheet) if engine.path else ""
        hub = engine.kind not in ("llama.cpp", "toy") and not os.path.exists(path)
        return engine if hub else replace(engine, path=path)

    def _rates(self) -> tuple[RateSettings, ...]:
        place = Place(("rates",), self._sheet)
        tables = self._table.get("rates", [])
        if not isinstance(tables, list):
            place.wrong(f"must be a list of tables, not {toml_name(tables)}", "write [[rates]]")
            return ()
        rates: list[RateSettings] = []
        for index, table in enumerate(tables):
            rate = RATE.read(table, place / index)
            if not isinstance(rate, Bad):
                rates.append(rate)
            self._check_model_of(table, place / index)
        return tuple(rates)

    def _check_model_of(self, rate: object, place: Place) -> None:
        name = rate.get("model") if isinstance(rate, dict) else None
        models = self._table.get("models", {})
        if isinstance(name, str) and isinstance(models, dict) and name not in models:
            (place / "model").wrong(f"{name!r} is no model here", nearest(name, list(models)))
