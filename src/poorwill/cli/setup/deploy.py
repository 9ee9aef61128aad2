"""`poorwill deploy`: print a systemd unit, and push the one file to a server."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from msgspec import Struct

from poorwill.cli.parsing.fleet import JsonOption
from poorwill.cli.parsing.options import Option, Values
from poorwill.cli.parsing.settings import read_fleet
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verb import new_verb, verb_family
from poorwill.compose.paths import ledger_path
from poorwill.config.unit import host_unit, replication_text, unit_for, unit_text
from poorwill.config.values.written import time_us
from poorwill.core.errors import ErrorCode, OperatorFault, RequestFault
from poorwill.core.problems import ConfigFault, Problem
from poorwill.core.settings import GatewaySettings
from poorwill.core.words import SECOND_US
from poorwill.remote.push import Push, Shell, carry_out_push, odd_word, shown
from poorwill.remote.systemd import Manager

FLEET = "/srv/poorwill/fleet.toml"
BUILT = "dist/poorwill"
INSTALLED = MappingProxyType(
    {Manager.SYSTEM: "/usr/local/bin/poorwill", Manager.USER: "%h/.local/bin/poorwill"}
)
"""Where the file is on the server. `%h` is systemd's word for the home directory."""


_BINARY = Option(
    "where the file is on the server (default: /usr/local/bin/poorwill, with --user ~/.local/bin/poorwill)",
    metavar="PATH",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedOptions:
    """Whose systemd runs the unit, and which program."""

    system: Annotated[bool, Option("the unit is one of the system's systemd: the default")] = False
    user: Annotated[bool, Option("the unit is one of the user's systemd: without root")] = False
    binary: Annotated[str | None, _BINARY] = None
    json: JsonOption = False

    @property
    def manager(self) -> Manager:
        """Return whose systemd it is. Raises RequestFault."""
        if self.system and self.user:
            what = "--system and --user exclude each other"
            raise RequestFault(ErrorCode.INVALID_REQUEST, what, hint="leave one of them out")
        return Manager.USER if self.user else Manager.SYSTEM


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitOptions(ManagedOptions):
    """The options of `poorwill deploy unit`."""

    fleet: Annotated[
        str, Option(f"the fleet to serve (default: {FLEET})", metavar="FILE", values=Values.FILES)
    ] = FLEET
    run_as: Annotated[str, Option("a user to run as instead of root", metavar="NAME")] = ""
    replicate: Annotated[str, Option("instead: Litestream, to copy the ledger there", metavar="URL")] = ""
    host: Annotated[str, Option("instead: the service of this host, or Ray's: `head`", metavar="NAME")] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOptions(ManagedOptions):
    """The options of `poorwill deploy push`."""

    host: Annotated[str, Option("as ssh takes it: root@box, or a name of ~/.ssh/config", argument=True)]
    fleet: Annotated[
        str | None,
        Option(
            "a copy of the server's fleet.toml, if its admin address or exit_s is not the default",
            metavar="FILE",
            values=Values.FILES,
        ),
    ] = None
    file: Annotated[
        str, Option(f"what to copy (default: {BUILT}, made by ./dev build)", values=Values.FILES)
    ] = BUILT
    unit: Annotated[str, Option("the unit (default: poorwill)")] = "poorwill"
    within_us: Annotated[
        int, Option("how long it may take to serve (default: 120)", flag="--within-s", read=time_us)
    ] = 120 * SECOND_US
    dry_run: Annotated[bool, Option("print the commands only")] = False


class UnitDocument(Struct, frozen=True, kw_only=True):
    """The text of a systemd unit."""

    unit: str


class CommandsDocument(Struct, frozen=True, kw_only=True):
    """The commands that a push would run."""

    commands: tuple[tuple[str, ...], ...]


class PushedDocument(Struct, frozen=True, kw_only=True):
    """A server that serves the new program, and what its /healthz says."""

    host: str
    health: Mapping[str, object]


async def _print_unit(options: UnitOptions, streams: Streams) -> int:
    text = _unit(options, streams)
    if options.json:
        streams.say_json(UnitDocument(unit=text))
    else:
        streams.write(text)
    return 0


async def _push(options: PushOptions, streams: Streams) -> int:
    push = _planned(options, streams)
    if options.dry_run:
        commands = tuple(push.commands())
        if options.json:
            streams.say_json(CommandsDocument(commands=commands))
        else:
            streams.say(*map(shown, commands))
        return 0
    terminal = streams.stderr if streams.progress else None
    shell = Shell(env=streams.env, tell=streams.tell, terminal=terminal)
    health = await carry_out_push(push, shell)
    if options.json:
        streams.say_json(PushedDocument(host=push.host, health=health))
    else:
        streams.say(f"{push.host} serves")
    return 0


def _unit(options: UnitOptions, streams: Streams) -> str:
    fleet = os.path.abspath(options.fleet)
    if not Path(fleet).exists():
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"there is no {fleet} here",
            hint="run it where the fleet is to be served: its exit_s and ladders go into the unit",
        )
    if options.run_as and options.manager is Manager.USER:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            "--run-as goes with --system: a --user unit runs as its user",
            hint="leave one of them out",
        )
    binary = options.binary or INSTALLED[options.manager]
    settings = read_fleet(fleet, streams.env)
    unit = unit_for(settings, manager=options.manager, binary=binary, fleet=fleet, run_as=options.run_as)
    words = {"fleet": unit.fleet, "run_as": unit.run_as, "replicate": options.replicate}
    _refuse_odd(binary=binary, directory=unit.directory, **words)
    if options.host:
        return unit_text(host_unit(unit, settings.hosts, options.host))
    if options.replicate:
        return replication_text(unit, ledger_path(settings), options.replicate)
    return unit_text(unit)


def _planned(options: PushOptions, streams: Streams) -> Push:
    gateway, exit_s = GatewaySettings(), 60
    if options.fleet:
        settings = read_fleet(options.fleet, streams.env)
        gateway, exit_s = settings.gateway, -(-settings.exit_us // SECOND_US)
    push = Push(
        host=options.host,
        file=os.path.join(".", options.file),  # with a slash, no colon makes it a host to scp
        binary=options.binary or INSTALLED[options.manager].removeprefix("%h/"),
        unit=options.unit,
        manager=options.manager,
        admin_host=_reachable(gateway.admin.host),
        admin_port=gateway.admin.port,
        exit_s=exit_s,
        within_s=options.within_us // SECOND_US,
    )
    _refuse_odd(host=push.host, binary=push.binary, unit=push.unit)
    if not push.admin_port:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            "the admin listener takes a free port, which nobody here can know",
            hint='give it one: [gateway] admin = "127.0.0.1:8081"',
        )
    if not Path(push.file).is_file():
        what = f"there is no file {push.file}"
        raise OperatorFault(ErrorCode.CONFIG_INVALID, what, hint="make it: ./dev build")
    return push


def _reachable(host: str) -> str:
    """Return an address to ask a listener at that may be bound to all addresses."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}.get(host, host).strip("[]")


def _refuse_odd(**words: str) -> None:
    problems = [
        Problem(
            where=f"--{name.replace('_', '-')}",
            what=f"{word!r} has a character that a shell or systemd may take for something else",
            hint="letters, digits and _ . / + @ : - are fine",
        )
        for name, word in words.items()
        if word and odd_word(word.removeprefix("%h"))
    ]
    if problems:
        raise ConfigFault(problems, source="the command line")


VERB = verb_family(
    {
        "unit": (
            "print a systemd unit, every line with its reason",
            new_verb(UnitOptions, _print_unit, UnitDocument),
        ),
        "push": (
            "copy the one file to a server and restart the unit",
            new_verb(PushOptions, _push, PushedDocument, CommandsDocument),
        ),
    },
    epilog="""\
examples:
  ./dev build                                    make dist/poorwill
  poorwill deploy unit --run-as poorwill         on the server
  poorwill deploy unit --replicate s3://bucket/ledger    the unit of Litestream beside it
  poorwill deploy push root@box --dry-run        the commands: scp, mv, systemctl restart, /healthz

push does nothing but these four, each shown before it runs. docs/deploy.md has the whole way.""",
)
