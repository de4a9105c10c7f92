"""What the pages for people say exists: links, files, commands with their flags, keys, reasons, targets of make."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tony.cli.main import cli
from tony.config.layers import Request, gather
from tony.errors import TonyError
from tony.state import Fault, JobState, Reason, TaskState

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
        *(ROOT / "benchmarks").rglob("*.md"),
        *(ROOT / "docker").rglob("*.md"),
    ]
)

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_INLINE = re.compile(r"`([^`\n]+)`")
_SUBSTITUTED = re.compile(r"\$\((tony [^)]*)\)")


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _prose(text: str) -> str:
    return _FENCE.sub("", text)


def _blocks(text: str, *languages: str) -> Iterator[str]:
    return (match[2] for match in _FENCE.finditer(text) if match[1] in languages)


def _anchors(text: str) -> set[str]:
    """The names by which headings can be linked, as code hosts make them."""
    heads = re.findall(r"^#+ (.+)$", _prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def _commands(text: str) -> Iterator[str]:
    """Every ``tony …`` that a reader could type."""
    for block in _blocks(text, "", "sh", "bash", "console"):
        joined = block.replace("\\\n", " ")
        for line in joined.splitlines():
            line = line.removeprefix("$ ")
            line = line.rpartition("&& ")[2] if "&& tony " in line else line
            if line.startswith("tony "):
                yield line
            yield from _SUBSTITUTED.findall(line)
    yield from (code for code in _INLINE.findall(_prose(text)) if code.startswith("tony "))


def _problem(line: str) -> str | None:
    """What is wrong with a command line of the documentation, as far as its help would tell."""
    try:
        words = shlex.split(line, comments=True)[1:]
    except ValueError as error:
        return str(error)
    words = words[: words.index("--")] if "--" in words else words
    command: click.Command = cli
    context = click.Context(cli)
    for word in words:
        if word.startswith("-"):
            flag = word.partition("=")[0]
            known = {name for one in command.get_params(context) for name in (*one.opts, *one.secondary_opts)}
            if flag not in known | {"--help", "-h"}:
                return f"{command.name} has no {flag}"
        elif isinstance(command, click.Group) and word not in ("COMMAND", "|"):
            # "start|stop" names both.
            found = [command.get_command(context, one) for one in word.split("|")]
            if None in found or found[0] is None:
                return f"no command {word}"
            command = found[0]
    return None


def test_there_are_pages() -> None:
    assert ROOT / "README.md" in PAGES and len(PAGES) > 15


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for link in _LINK.findall(_prose(page.read_text())):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and anchor not in _anchors(path.read_text())):
            wrong.append(link)
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_exist_with_their_flags(page: Path) -> None:
    wrong = {line: problem for line in _commands(page.read_text()) if (problem := _problem(line))}
    assert not wrong


@pytest.mark.parametrize(
    "line", ["tony submti x.py", "tony submit --wokers 2", "tony cluster strat", "tony ls --nosuch", "tony 'open"]
)
def test_a_wrong_command_would_be_noticed(line: str) -> None:
    assert _problem(line)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_files_of_the_project_that_are_named_exist(page: Path) -> None:
    text = page.read_text()
    named = set(re.findall(r"(?<![\w/.~-])((?:examples|docs|conf|tests|tony|appmaster|executor)/[\w./-]*\w)", text))
    wrong = [name for name in sorted(named) if not _file(page, name)]
    assert not wrong


def _file(page: Path, name: str) -> bool:
    # "tony/" also begins folders on nodes and of the user; a file of the project has a suffix.
    if name.startswith("tony/") and "." not in name:
        return True
    return any((base / name).exists() for base in (ROOT, page.parent))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_job_files_in_pages_have_no_mistakes(page: Path, tmp_path: Path) -> None:
    for block in _blocks(page.read_text(), "yaml"):
        (tmp_path / "job.yaml").write_text(block)
        for name in re.findall(r"[\w./-]+\.(?:txt|zip)\b", block):
            (tmp_path / name).touch()
        settings = gather(Request(job_file=Path("job.yaml"), environ={}, folder=tmp_path))
        assert not settings.problems


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_python_in_pages_is_python(page: Path) -> None:
    for block in _blocks(page.read_text(), "python"):
        ast.parse(block)


def test_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        text = page.read_text()
        lines = [line for block in _blocks(text, "") for line in block.splitlines()] + _INLINE.findall(_prose(text))
        for line in lines:
            found = re.match(r"(?:\w+=\S+ |\w+=\"[^\"]*\" )?make ((?:[\w-]+ ?)+)(?:$| *#| &&)", line)
            for target in found[1].split() if found else ():
                assert target in targets, f"{page}: make {target}"


def test_keys_of_job_files_are_those_of_the_table() -> None:
    place = ROOT / "docs" / "keys_table.py"
    specification = importlib.util.spec_from_file_location("keys_table", place)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    text = (ROOT / "docs" / "job-file.md").read_text()
    assert module.page(text) == text, "run: .venv/bin/python docs/keys_table.py"


def test_reasons_and_states_are_those_of_the_program() -> None:
    text = (ROOT / "docs" / "concepts.md").read_text()
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \|.*\| (\d+) \|$", text, re.MULTILINE))
    reasons = {reason.value: str(reason.exit_code) for reason in Reason if reason.fault is not Fault.NONE}
    assert rows == reasons
    for state in (*JobState, *TaskState):
        assert f"`{state.value}`" in text


def test_exit_codes_are_those_of_the_program() -> None:
    text = (ROOT / "docs" / "concepts.md").read_text().partition("## Exit codes")[2]
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    classes = [TonyError]
    for one in classes:
        classes += one.__subclasses__()
    assert told == {0, 130} | {reason.exit_code for reason in Reason} | {one.exit_code for one in classes}
