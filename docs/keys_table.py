"""The tables of keys in docs/job-file.md, made from tony/config/keys.py. Run, it writes them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tony.config.document import as_yaml
from tony.config.key import Key, Kind
from tony.config.keys import GROUPS, KEYS
from tony.config.rolekeys import ROLE_FLAGS, ROLE_KEYS

PAGE = Path(__file__).with_name("job-file.md")
_BEGIN, _END = "<!-- keys -->\n", "<!-- end of keys -->\n"
_KINDS = {
    Kind.TEXT: "text",
    Kind.INTEGER: "number",
    Kind.SIZE: "size",
    Kind.DURATION: "duration",
    Kind.SWITCH: "true, false",
    Kind.WORDS: "list",
    Kind.PAIRS: "map",
    Kind.COUNTS: "map of numbers",
    Kind.CLUSTERS: "map of clusters",
}


def tables() -> str:
    """Markdown: the keys of a role, then the others by group, then the flags that speak of a role."""
    lines = ["### Of a role (`roles.NAME`)", "", *_table(ROLE_KEYS, flags=False)]
    for group, title in GROUPS.items():
        members = [key for key in KEYS if key.group == group and key.name != "role"]
        if members:
            lines += ["", f"### {title}", "", *_table(members, flags=True)]
    lines += ["", "### Flags that speak of a role", "", "| flag | key | variable |", "|---|---|---|"]
    lines += [f"| `{key.flag}` | `{key.name}` | `{key.variable}` |" for key in ROLE_FLAGS]
    return "\n".join(lines) + "\n"


def _table(members: Iterable[Key], flags: bool) -> Iterable[str]:
    yield "| key | value | default | meaning |" + (" flag |" if flags else "")
    yield "|---|---|---|---|" + ("---|" if flags else "")
    for key in members:
        kind = ", ".join(f"`{one}`" for one in key.choices) or _KINDS[key.kind]
        default = f"`{as_yaml(key.default)}`" if key.default is not None else ""
        cells = [f"`{key.name}`", kind, default, key.help.replace("|", "\\|")]
        if flags:
            cells.append(f"`{key.flag}`" if key.flag else "")
        yield "| " + " | ".join(cells) + " |"


def page(text: str) -> str:
    """The page's text with fresh tables."""
    head, _, rest = text.partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    return head + _BEGIN + "\n" + tables() + "\n" + _END + tail


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
