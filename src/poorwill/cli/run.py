"""`run(args, env, stdin, stdout, stderr)`: the whole command line as one function.

Tests call it as a user would. It parses, dispatches to a verb and turns errors into exit statuses; it
does nothing else. Cancelling it is how a verb that runs for long is told to shut down.
"""

import argparse
import difflib
import traceback
from collections.abc import Mapping, Sequence
from typing import TextIO

from poorwill.cli.parsing.parser import Done, Parser
from poorwill.cli.parsing.verb import EXIT_STATUS, THE_MACHINES, Streams, Verb
from poorwill.cli.parsing.verbs import VERBS, load_verb
from poorwill.core.errors import ConfigFault, ErrorCode, PoorwillError


async def run(
    args: Sequence[str], env: Mapping[str, str], stdin: TextIO, stdout: TextIO, stderr: TextIO
) -> int:
    """Run one command line and return its exit status.

    Cancellation reaches the verb; `serve` answers it with a graceful shutdown and status 0.
    """
    streams = Streams(env=env, stdin=stdin, stdout=stdout, stderr=stderr)
    try:
        status = await _status(args, streams)
        stdout.flush()
        return status
    except (PoorwillError, ExceptionGroup) as error:
        return _told(error, streams)
    except BrokenPipeError:
        return EXIT_STATUS[ErrorCode.CLIENT_GONE]
    except Exception as error:
        if isinstance(error, OSError) and error.errno in THE_MACHINES:
            streams.tell(f"poorwill: {error.filename or 'cannot write'}: {error.strerror}")
        else:
            streams.tell(traceback.format_exc().rstrip())
            streams.tell("poorwill: this is a defect of poorwill; please report it with the lines above")
        return EXIT_STATUS[ErrorCode.INTERNAL]


async def _status(args: Sequence[str], streams: Streams) -> int:
    """Parse and dispatch to the verb; return its exit status."""
    try:
        parser, words = _parser_for(args, streams)
        # Options may stand between arguments; after `--` nothing is one, which only the plain parser heeds.
        parse = parser.parse_args if "--" in words else parser.parse_intermixed_args
        options = parse(words)
        verb: Verb = options.verb
        return await verb.run(options, streams)
    except Done as done:
        return done.status


def _told(error: Exception, streams: Streams) -> int:
    """Tell a person what is wrong and return the exit status.

    A fault inside a task group arrives wrapped; it is told like any other. Anything else is raised on.
    """
    if isinstance(error, ExceptionGroup):
        _, others = error.split(PoorwillError)
        if others is not None:
            raise error
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
    assert isinstance(error, PoorwillError)
    streams.tell(f"poorwill: {error.message}")
    for problem in error.problems if isinstance(error, ConfigFault) else ():
        streams.tell(f"  {problem}")
    if error.hint:
        streams.tell(f"  hint: {error.hint}")
    return EXIT_STATUS[error.code]


def _parser_for(args: Sequence[str], streams: Streams) -> tuple[Parser, Sequence[str]]:
    if not args or args[0] in ("-h", "--help", "help"):
        streams.stdout.write(overview())
        raise Done(0 if args else 2)
    if args[0] in ("-V", "--version", "version"):
        from importlib.metadata import version

        streams.say(f"poorwill {version('poorwill')}")
        raise Done(0)
    name = args[0]
    if name not in VERBS:
        near = difflib.get_close_matches(name, VERBS, n=1)
        streams.tell(f"poorwill: no verb {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        streams.tell("  hint: poorwill --help lists the verbs")
        raise Done(2)
    verb = load_verb(name)
    parser = Parser(
        prog=f"poorwill {name}",
        description=verb.help,
        epilog=verb.epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.streams = streams
    verb.options(parser)
    parser.set_defaults(verb=verb)
    return parser, args[1:]


def overview() -> str:
    """Return the text of `poorwill --help`."""
    lines = [
        "usage: poorwill VERB [OPTION...]",
        "",
        "Scale-to-zero serving for large language models: parks an idle model by snapshot, wakes it on the",
        "first request within a hard budget, and accounts for every second on the bill.",
        "",
    ]
    lines += [f"  {name:<11} {load_verb(name).help}" for name in VERBS]
    lines += [
        "",
        "poorwill VERB --help explains a verb; poorwill --version prints the version.",
        "",
    ]
    return "\n".join(lines)
