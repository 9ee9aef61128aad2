"""`load_fleet`: from a path to `FleetSettings`, or to a `ConfigFault` with every problem at once."""

import os.path
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from poorwill.config.file_keys import FileTable, file_tables
from poorwill.config.key_lines import KeyLines
from poorwill.config.machine_checks import WeightsFault, check_machine, no_fault
from poorwill.config.problems import Bad, FileProblems, Location, ModelProblems
from poorwill.config.rules.cloud import check_cloud, check_clouds
from poorwill.config.rules.devices import check_devices
from poorwill.config.rules.elsewhere import check_elsewhere, priced, settled
from poorwill.config.rules.fleet import check_fleet
from poorwill.config.rules.hosts import check_hosts
from poorwill.config.rules.model import EngineOptions, check_model, check_options, usual_concurrency
from poorwill.config.toml_text import LOST, parse
from poorwill.config.values.addresses import absolute
from poorwill.config.values.containers import KeyValues
from poorwill.config.values.hub_names import SCHEME
from poorwill.config.values.scalars import MODEL_NAME, nearest, toml_name
from poorwill.core.problems import ConfigFault, Problem
from poorwill.core.settings import EngineSettings, FleetSettings, ModelSettings, RateSettings
from poorwill.core.words import ModelName
from poorwill.hosts.files.opening import read_whole

MOST_BYTES = 2**20
"""Largest `fleet.toml`: a thousand models take a fifth of it."""


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
    tables = file_tables()
    found = FileProblems(
        lines=document.lines,
        base=os.path.dirname(os.path.abspath(path)),
        home=env.get("HOME", ""),
        problems=list(document.faults),
        partial=bool(document.faults),
        tables_of=_tables_of(tables),
    )
    fleet = _Reading(document.table, tables, found, engine_options).fleet(os.path.basename(path))
    if machine:
        check_machine(fleet, found, env, weights_fault=weights_fault, source=path)
    if found.problems:
        raise ConfigFault(found.in_order(), source=path)
    return fleet


def lines_of(path: str) -> KeyLines:
    """Return the lines of a configuration file's keys. Raises ConfigFault if it cannot be read."""
    return parse(_text(path)).lines


def _text(path: str) -> str:
    try:
        return read_whole(path, most_bytes=MOST_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigFault([_unreadable(error)], source=path) from error


def _unreadable(error: OSError | UnicodeDecodeError) -> Problem:
    if isinstance(error, UnicodeDecodeError):
        return Problem(where="the file", what="is not UTF-8 text", hint="TOML files are UTF-8")
    if isinstance(error, FileNotFoundError):
        hint = "poorwill init writes one; --fleet FLEET names another"
        return Problem(where="the file", what="does not exist", hint=hint)
    return Problem(where="the file", what=f"cannot be read: {error.strerror}")


def _tables_of(tables: Mapping[str, FileTable]) -> Mapping[str, str]:
    """Return the header of the table that each key belongs to; the first table in the manual wins."""
    headers = {"models": "[models.NAME] or [defaults]", "defaults": "[models.NAME] or [defaults]"}
    return {
        key: headers.get(table.name, table.header)
        for table in reversed(tuple(tables.values()))
        for key in table.keys.keys
    }


class _Reading:
    """One pass over a document's tables."""

    def __init__(
        self,
        document: dict[str, object],
        tables: Mapping[str, FileTable],
        found: FileProblems,
        engine_options: EngineOptions,
    ) -> None:
        self._document = document
        self._keys = {name: table.keys for name, table in tables.items()}
        self._found = found
        self._engine_options = engine_options

    def fleet(self, source: str) -> FleetSettings:
        """Return the settings, as far as they could be read; everything wrong is among the problems."""
        self._check_table_names()
        values = self._values("fleet")
        values.setdefault("directory", self._found.base)
        defaults = self._values("defaults")
        models = self._models(defaults)
        rates = priced(self._rates(), models)
        spend = self._keys["spend"].assemble(self._values("spend"))
        statement = self._keys["statement"].assemble(self._values("statement"))
        fleet: FleetSettings = self._keys["fleet"].assemble(
            values,
            models=models,
            gateway=self._keys["gateway"].assemble(self._values("gateway")),
            rates=rates,
            devices=tuple(self._list("devices")),
            hosts=self._keys["hosts"].assemble(self._hosts()) if "hosts" in self._document else None,
            spend=replace(spend, currency=rates[0].currency) if rates else spend,
            statement=statement,
            source=source,
        )
        check_fleet(fleet, self._found)
        check_clouds(fleet, self._found)
        check_devices(fleet, self._found)
        check_hosts(fleet, self._found)
        return fleet

    def _check_table_names(self) -> None:
        for name, value in self._document.items():
            if name not in self._keys and not name.startswith(LOST):
                hint = self._found.belongs(name) or nearest(name, tuple(self._keys))
                what = "unknown table" if isinstance(value, dict | list) else "unknown key"
                self._found.wrong((name,), what, hint)

    def _values(self, name: str) -> KeyValues:
        values = self._keys[name].values(self._document.get(name, {}), Location((name,), self._found))
        return {} if isinstance(values, Bad) else values

    def _hosts(self) -> KeyValues:
        values = self._values("hosts")
        values.setdefault("key", absolute("hosts.pem", self._found))
        return values

    def _models(self, defaults: KeyValues) -> tuple[ModelSettings, ...]:
        at = Location(("models",), self._found)
        tables = self._document.get("models", {})
        if not isinstance(tables, dict):
            at.wrong(f"must be tables, not {toml_name(tables)}", "write [models.NAME]")
            return ()
        if not tables and not self._found.partial:
            at.wrong("no model is configured", "write [models.NAME]")
        return tuple(self._model(name, table, at / name, defaults) for name, table in tables.items())

    def _model(self, name: str, table: object, at: Location, defaults: KeyValues) -> ModelSettings:
        if not re.fullmatch(MODEL_NAME, name) or {"", ".", ".."} & set(name.split("/")):
            hint = "letters, digits and . _ - : / @ +, at most 128, a letter or digit first; no .. between /"
            at.wrong("is not a name for a model", hint)
        keys = self._keys["models"]
        own = keys.values(table, at)
        values = keys.laid_over(defaults, {} if isinstance(own, Bad) else own)
        model: ModelSettings = keys.assemble(
            values, name=ModelName(name), **{"replica.model": ModelName(name)}
        )
        model = replace(model, engine=self._placed(self._found_on_disk(model.engine)))
        model = settled(model, () if isinstance(own, Bad) else own)
        if "max_concurrency" not in values:
            limit = usual_concurrency(model.engine)
            model = replace(model, replica=replace(model.replica, max_concurrency=limit))
        here = ModelProblems(name=name, found=self._found)
        check_model(model, here)
        check_elsewhere(model, here)
        check_cloud(model, here)
        check_options(model, here, self._engine_options.get(model.engine.kind))
        return model

    def _placed(self, engine: EngineSettings) -> EngineSettings:
        """Return the engine with the directory that it runs in, if it is a command of one's own."""
        by_default = engine.kind == "command" and not engine.user and not engine.cwd
        return replace(engine, cwd=self._found.base) if by_default else engine

    def _found_on_disk(self, engine: EngineSettings) -> EngineSettings:
        """Return the engine with an absolute path, unless the path is a model id of the hub."""
        if engine.path.startswith(SCHEME):
            return engine
        path = absolute(engine.path, self._found) if engine.path else ""
        hub = engine.kind not in ("llama.cpp", "toy") and not os.path.exists(path)
        return engine if hub else replace(engine, path=path)

    def _list(self, name: str) -> Sequence[object]:
        """Return the settings of an array of tables, as far as they could be read."""
        at = Location((name,), self._found)
        tables = self._document.get(name, [])
        if not isinstance(tables, list):
            at.wrong(f"must be a list of tables, not {toml_name(tables)}", f"write [[{name}]]")
            return ()
        read = [self._keys[name].read(table, at / index) for index, table in enumerate(tables)]
        return [settings for settings in read if not isinstance(settings, Bad)]

    def _rates(self) -> tuple[RateSettings, ...]:
        rates = tuple(rate for rate in self._list("rates") if isinstance(rate, RateSettings))
        tables = self._document.get("rates", [])
        for index, table in enumerate(tables if isinstance(tables, list) else ()):
            self._check_model_of(table, Location(("rates", index), self._found))
        self._check_signs(tables)
        return rates

    def _check_signs(self, rates: object) -> None:
        """Amounts are in the rate's currency, those of [spend] in the rates': a `$` says something else."""
        tables = [each for each in (rates if isinstance(rates, list) else ()) if isinstance(each, dict)]
        places = [(("rates", index), table, table) for index, table in enumerate(tables)]
        spend = [(("spend",), self._document.get("spend"), tables[0])] if tables else []
        for path, table, rate in (*places, *spend):
            currency = rate.get("currency", "USD")
            for key, value in table.items() if isinstance(table, dict) and currency != "USD" else ():
                amounts = value.values() if isinstance(value, dict) else (value,)
                if "_usd" in key and any("$" in each for each in amounts if isinstance(each, str)):
                    what = f"is in dollars, but the currency of its rate is {currency}"
                    Location((*path, key), self._found).wrong(what, f"write 0.35: amounts are in {currency}")

    def _check_model_of(self, rate: object, at: Location) -> None:
        name = rate.get("model") if isinstance(rate, dict) else None
        models = self._document.get("models", {})
        if isinstance(name, str) and isinstance(models, dict) and name not in models:
            (at / "model").wrong(f"{name!r} is no model here", nearest(name, list(models)))
