"""`run(args, env, stdin, stdout, stderr)`: the whole command line as one function.

It finds the verb and turns errors into exit statuses. Cancelling it asks a long-running verb to shut down.
"""

import traceback
from collections.abc import Mapping, Sequence
from typing import TextIO

from poorwill import __version__
from poorwill.cli.parsing.exit_status import EXIT_STATUS, THE_MACHINES
from poorwill.cli.parsing.options import Done
from poorwill.cli.parsing.streams import Streams
from poorwill.cli.parsing.verbs import GROUPS, VERBS, load_verb
from poorwill.core.errors import ErrorCode, OperatorFault, PoorwillError, RequestFault
from poorwill.core.format import meant, table
from poorwill.core.problems import ConfigFault
from poorwill.hosts.files.opening import UnsafeFile


async def run(
    args: Sequence[str], env: Mapping[str, str], stdin: TextIO, stdout: TextIO, stderr: TextIO
) -> int:
    """Run one command line and return its exit status.

    Cancellation reaches the verb; `serve` answers it with a graceful shutdown and status 0.
    """
    streams = Streams(env=env, stdin=stdin, stdout=stdout, stderr=stderr)
    try:
        status = await _dispatch(args, streams)
        stdout.flush()
        return status
    except Done as done:
        return done.status
    except BrokenPipeError:
        return EXIT_STATUS[ErrorCode.CLIENT_GONE]
    except Exception as error:
        fault = _as_fault(error)
        if fault is None:
            streams.tell(traceback.format_exc().rstrip())
            what = "this is a defect of poorwill; please report it with the lines above"
            fault = OperatorFault(ErrorCode.INTERNAL, what)
        _tell(fault, streams, as_json="--json" in args)
        return EXIT_STATUS[fault.code]


async def _dispatch(args: Sequence[str], streams: Streams) -> int:
    """Find the verb and run it; return its exit status."""
    if not args or args[0] in ("-h", "--help", "help"):
        streams.stdout.write(overview())
        return 0 if args else EXIT_STATUS[ErrorCode.INVALID_REQUEST]
    name = args[0]
    if name in ("-V", "--version", "version"):
        streams.say(f"poorwill {__version__}")
        return 0
    if name not in VERBS:
        what = f"no verb {name!r}{meant(name, VERBS)}"
        raise RequestFault(ErrorCode.INVALID_REQUEST, what, hint="poorwill --help lists the verbs")
    return await load_verb(name).run(args[1:], f"poorwill {name}", VERBS[name][1], streams)


def _as_fault(error: Exception) -> PoorwillError | None:
    """Return what a person can mend about an error, None if it is a defect.

    A fault inside a task group arrives in a group, and counts like any other.
    """
    if isinstance(error, ExceptionGroup) and error.split(PoorwillError)[1] is None:
        return _as_fault(error.exceptions[0])
    if isinstance(error, OSError) and error.errno in THE_MACHINES:
        what = f"{error.filename or 'cannot write'}: {error.strerror}"
        code = ErrorCode.CONFIG_INVALID if isinstance(error, UnsafeFile) else ErrorCode.INTERNAL
        return OperatorFault(code, what)
    return error if isinstance(error, PoorwillError) else None


def _tell(fault: PoorwillError, streams: Streams, *, as_json: bool) -> None:
    """Say what is wrong: to a person on stderr, or, with --json, as the document on stdout."""
    if as_json:
        from poorwill.cli.parsing.failure import failure

        try:
            streams.say_json(failure(fault))
            streams.stdout.flush()
        except OSError:
            return  # stdout is what fails; the exit status remains
        return
    streams.tell(f"poorwill: {fault.message}")
    for problem in fault.problems if isinstance(fault, ConfigFault) else ():
        streams.tell(f"  {problem}")
    if fault.hint:
        streams.tell(f"  hint: {fault.hint}")


def overview() -> str:
    """Return the text of `poorwill --help`."""
    lines = [
        "usage: poorwill VERB [OPTION...]",
        "",
        "Scale-to-zero serving for large language models: parks an idle model by snapshot, wakes it on the",
        "first request within a hard budget, and accounts for every second on the bill.",
    ]
    width = max(map(len, VERBS))
    for title, verbs in GROUPS.items():
        lines += ["", title]
        lines += table([(name.ljust(width), text) for name, (_, text) in verbs.items()], indent="  ")
    lines += ["", "poorwill VERB --help explains a verb; poorwill --version prints the version.", ""]
    return "\n".join(lines)
