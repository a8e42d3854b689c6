"""What the documents name exists: files, sections, commands, their options, make targets."""

import importlib
import importlib.util
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tools import cli

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("hil/**/*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
#: Paths of this repository in code spans; a place for a name (`<board>`, `*`) is not one, nor is a
#: file of a region.
PATH = re.compile(
    r"`((?:docs|firmware|gateway|hil|ledger|requirements|tests|tools)/[\w./-]+|[\w-]+\.md)`"
)
FENCE = re.compile(r"```.*?```", re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
COMMAND = re.compile(r"(?:\S*/bin/)?(gridwitness|python -m [\w.]+|make(?= [a-z]))( .*)?")


def name(document: Path) -> str:
    return str(document.relative_to(ROOT))


def commands(document: Path) -> list[list[str]]:
    """Give the command lines of a document, in code blocks and in code spans, as words."""
    text = document.read_text()
    lines = [line for block in FENCE.findall(text) for line in block.splitlines()]
    lines += [line for line in text.splitlines() if line.startswith("    ")]
    found = []
    for line in lines + SPAN.findall(FENCE.sub("", text)):
        match = COMMAND.fullmatch(line.removeprefix("ExecStart=").strip())
        if match is not None:
            words = match[1] + re.sub(r"[\[\]…]", "", match[2] or "")
            found.append(shlex.split(words, comments=True))
    return found


ALL = [(name(document), words) for document in DOCUMENTS for words in commands(document)]


def slug(heading: str) -> str:
    """Give a heading's anchor, as the usual viewers of Markdown make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_link_leads_somewhere(document):
    for target in LINK.findall(document.read_text()):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        file, _, section = target.partition("#")
        path = document.parent / file if file else document
        assert path.exists(), target
        if section:
            headings = re.findall(r"(?m)^#+ (.*)$", path.read_text())
            assert section in [slug(heading) for heading in headings], target


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_file_that_is_named_exists(document):
    for path in PATH.findall(document.read_text()):
        if path.endswith(".sqlite"):
            continue
        assert any(
            folder.joinpath(path + suffix).exists()
            for folder in (ROOT, document.parent, ROOT / "docs")
            for suffix in ("", ".py")
        ), path


def test_documents_name_commands():
    programs = {words[0] for _, words in ALL}
    assert programs >= {"gridwitness", "python", "make"}


@pytest.mark.parametrize(("document", "words"), ALL, ids=[" ".join(words) for _, words in ALL])
def test_every_command_and_option_exists(document, words, capsys):
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text()
        targets = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
        for target in targets:
            assert re.search(rf"(?m)^{re.escape(target)}:", makefile), target
        return
    if words[0] == "python":
        check_module(words[2:], capsys)
        return
    sub = [words[1]] if len(words) > 1 else []
    if sub in (["board"], ["member"], ["network"], ["cometbft"]) and len(words) > 2:
        sub.append(words[2])
    with pytest.raises(SystemExit) as end:
        cli.main([*sub, "--help"])
    assert end.value.code == 0
    check_options(words, capsys.readouterr().out)


def check_module(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert importlib.util.find_spec(words[0]) is not None, words[0]
    if words[0] == "gateway":
        with pytest.raises(SystemExit):
            importlib.import_module("gateway.__main__").main(["--help"])
        check_options(words, capsys.readouterr().out)


def check_options(words: list[str], help_text: str) -> None:
    for option in [word.partition("=")[0] for word in words if word.startswith("--")]:
        assert option == "--help" or re.search(rf"{option}\b", help_text), option


def test_help_of_make_names_every_target_that_people_call():
    done = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    for target in ("demo", "test", "lint", "bench", "vectors", "coverage", "lock", "clean"):
        assert f"make {target} " in done.stdout
