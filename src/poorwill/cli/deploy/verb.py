"""`poorwill deploy`: print a systemd unit, and push the one file to a server."""

import argparse
import os
from pathlib import Path
from types import MappingProxyType

from poorwill.cli.deploy.push import Push, carry_out_push, odd_word, shown
from poorwill.cli.deploy.unit import Manager, unit_for, unit_text
from poorwill.cli.parsing.target import add_json_option, read_fleet
from poorwill.cli.parsing.verb import Streams, Verb
from poorwill.core.errors import ConfigFault, ErrorCode, OperatorFault, Problem, RequestFault
from poorwill.core.settings import GatewaySettings
from poorwill.core.words import SECOND_US

FLEET = "/srv/poorwill/fleet.toml"
BUILT = "dist/poorwill"
INSTALLED = MappingProxyType(
    {Manager.SYSTEM: "/usr/local/bin/poorwill", Manager.USER: "%h/.local/bin/poorwill"}
)
"""Where the file is on the server. `%h` is systemd's word for the home directory."""


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["unit", "push"], help="what to do")
    parser.add_argument("host", nargs="?", help="push: as ssh takes it: root@box, or a name of ~/.ssh/config")
    which = parser.add_mutually_exclusive_group()
    for manager, about in ((Manager.SYSTEM, "the default"), (Manager.USER, "without root")):
        which.add_argument(
            f"--{manager}",
            dest="manager",
            action="store_const",
            const=manager,
            default=Manager.SYSTEM,
            help=f"the unit is one of the {manager}'s systemd: {about}",
        )
    parser.add_argument(
        "--fleet",
        metavar="FILE",
        help=f"unit: the fleet to serve (default: {FLEET}); push: a copy of the server's fleet.toml, where "
        "its admin address or exit_s is not the default",
    )
    parser.add_argument(
        "--binary",
        metavar="PATH",
        help="where the file is on the server (default: /usr/local/bin/poorwill, "
        "with --user ~/.local/bin/poorwill)",
    )
    parser.add_argument("--run-as", metavar="NAME", help="unit: a user to run as instead of root")
    _add_push_options(parser)
    add_json_option(parser)


def _add_push_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--file", default=BUILT, help=f"push: what to copy (default: {BUILT}, made by ./dev build)"
    )
    parser.add_argument("--unit", default="poorwill", help="push: the unit (default: poorwill)")
    parser.add_argument(
        "--within-s",
        type=int,
        default=120,
        help="push: how long it may take to serve (default: 120)",
    )
    parser.add_argument("--dry-run", action="store_true", help="push: print the commands only")


async def _run(options: argparse.Namespace, streams: Streams) -> int:
    if (options.action == "push") != (options.host is not None):
        takes = "takes a HOST" if options.action == "push" else "takes no HOST"
        raise RequestFault(ErrorCode.INVALID_REQUEST, f"poorwill deploy {options.action} {takes}")
    if options.action == "unit":
        text = _unit(options, streams)
        if options.json:
            streams.say_json({"unit": text})
        else:
            streams.stdout.write(text)
        return 0
    push = _push(options, streams)
    if options.dry_run:
        _say_commands(push, options, streams)
        return 0
    health = await carry_out_push(push, streams)
    if options.json:
        streams.say_json({"host": push.host, "health": health})
    else:
        streams.say(f"{push.host} serves")
    return 0


def _say_commands(push: Push, options: argparse.Namespace, streams: Streams) -> None:
    if options.json:
        streams.say_json({"commands": push.commands()})
        return
    for command in push.commands():
        streams.say(shown(command))


def _unit(options: argparse.Namespace, streams: Streams) -> str:
    options.fleet = os.path.abspath(options.fleet or FLEET)
    if not Path(options.fleet).exists():
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            f"there is no {options.fleet} here",
            hint="run it where the fleet is to be served: its exit_s and ladders go into the unit",
        )
    if options.run_as and options.manager is Manager.USER:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            "--run-as goes with --system: a --user unit runs as its user",
            hint="leave one of them out",
        )
    binary = options.binary or INSTALLED[options.manager]
    settings = read_fleet(options, streams)
    unit = unit_for(
        settings,
        manager=options.manager,
        binary=binary,
        fleet=options.fleet,
        run_as=options.run_as or "",
    )
    _refuse_odd(binary=binary, fleet=unit.fleet, run_as=unit.run_as, directory=unit.directory)
    return unit_text(unit)


def _push(options: argparse.Namespace, streams: Streams) -> Push:
    gateway, exit_s = GatewaySettings(), 60
    if options.fleet:
        settings = read_fleet(options, streams)
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
        within_s=options.within_s,
    )
    _refuse_odd(host=push.host, binary=push.binary, unit=push.unit)
    if not push.admin_port:
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID,
            "the admin listener takes a free port, which nobody here can know",
            hint='give it one: [gateway] admin = "127.0.0.1:8081"',
        )
    if not Path(push.file).is_file():
        raise OperatorFault(
            ErrorCode.CONFIG_INVALID, f"there is no file {push.file}", hint="make it: ./dev build"
        )
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


VERB = Verb(
    name="deploy",
    help="print a systemd unit; copy the one file to a server and restart it",
    options=_options,
    run=_run,
    epilog="""\
examples:
  ./dev build                                    make dist/poorwill
  poorwill deploy unit --run-as poorwill         on the server: the unit, every line with its reason
  poorwill deploy push root@box --dry-run        the commands: scp, mv, systemctl restart, /healthz

push does nothing but these four, each shown before it runs. docs/deploy.md has the whole way.""",
)
