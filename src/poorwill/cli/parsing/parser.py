"""The parser of one verb's options. It parses and tells what is wrong; it never ends the process."""

import argparse
from typing import NoReturn

from poorwill.cli.parsing.verb import Streams


class Done(Exception):
    """The command line is dealt with: help was printed, or a mistake was told. Carries the exit status."""

    def __init__(self, status: int) -> None:
        self.status = status


class Parser(argparse.ArgumentParser):
    """argparse writing to the given streams, raising instead of exiting the process."""

    streams: Streams

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Tell the message and raise Done."""
        if message:
            self.streams.stderr.write(message)
        raise Done(status)

    def error(self, message: str) -> NoReturn:
        """Tell a mistake, point to the help and raise Done with 2."""
        self.exit(2, f"poorwill: {message}\n  hint: {self.prog} --help lists every option\n")

    def print_help(self, file: object = None) -> None:
        """Print the help on the given output, whatever `file` says."""
        self.streams.stdout.write(self.format_help())
