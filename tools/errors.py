"""What a command says when it cannot do what it was asked: one sentence, exit code 2."""


class CommandError(Exception):
    """A wrong file or option; the message says what is wrong, where, and what to do."""
