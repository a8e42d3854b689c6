"""Reads tests/vectors, on both interpreters."""

import json

_FOLDER = __file__.replace("\\", "/").rpartition("/")[0] + "/vectors/"


def load(name):
    """Return the content of one vector file; byte strings stay hexadecimal."""
    with open(_FOLDER + name + ".json") as file:
        return json.load(file)


def unhex(text):
    """Return a byte string, or None for null."""
    return None if text is None else bytes.fromhex(text)


def raised(error, function, *arguments):
    """Tell whether the call raises exactly this error; any other goes on its way."""
    try:
        function(*arguments)
    except error as e:
        return type(e) is error
    return False
