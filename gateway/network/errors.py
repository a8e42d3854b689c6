"""What stands in the way of a network: one sentence that says what is wrong and what to do."""


class NetworkFolderError(ValueError):
    """A network's folder, or a region's that is to join one, is not what it has to be."""


class ProgramError(Exception):
    """CometBFT is not installed, is of another version, or is no program at all."""
