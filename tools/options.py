"""What commands share: types of options, and a console."""

import argparse
from pathlib import Path

from rich.console import Console

from gateway.network.folder import has_control


def named_path(text: str) -> Path:
    """Give the path that an option names; an empty one (``"$UNSET"``) is not the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("is empty: name a file or folder")
    if has_control(text):
        raise argparse.ArgumentTypeError(f"{text!r} has control characters: name another one")
    return Path(text)


class PipeConsole(Console):
    """A console that leaves a reader who went away (``gridwitness show | head``) to the command."""

    def on_broken_pipe(self) -> None:
        """Raise the BrokenPipeError that is being handled; rich itself would exit with 1."""
        raise  # noqa: PLE0704 - called from an except clause
