"""Every setting exists once, and everything that is made from the table agrees with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tony import frameworks
from tony.config import keys, rolekeys
from tony.config.document import default_file
from tony.config.layers import Request, default_of, gather
from tony.config.load import read_table
from tony.config.resolve import resolve
from tony.spec import JobSpec, RoleSpec

CONF = Path(__file__).resolve().parents[2] / "conf"


def test_the_default_file_is_what_the_table_says() -> None:
    written = (CONF / "tony-default.yaml").read_text()
    assert written == default_file(), "make it again: python -m tony.config.document > conf/tony-default.yaml"


def test_the_default_file_changes_nothing_when_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    environ: dict[str, str] = {}
    plain = Request(script="train.py", folder=tmp_path, environ=environ)
    with_defaults = Request(script="train.py", folder=tmp_path, environ=environ, user_file=CONF / "tony-default.yaml")
    assert resolve(with_defaults).job == resolve(plain).job


def test_the_example_site_file_is_accepted(tmp_path: Path) -> None:
    settings = gather(Request(folder=tmp_path, environ={"TONY_SITE": str(CONF / "tony-site.yaml.example")}))
    assert settings.problems == []
    assert settings.value("clusters")["research"]["conf_dir"] == "/etc/hadoop/conf"


def test_defaults_are_those_of_the_specification(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    job = resolve(Request(script="train.py", folder=tmp_path, environ={})).job
    assert job == JobSpec("train", (RoleSpec("worker", ("train.py",)),), source=str(tmp_path))


def test_no_name_flag_or_variable_is_used_twice() -> None:
    every = (*keys.KEYS, *rolekeys.ROLE_FLAGS)
    for names in ([key.name for key in every], [key.flag for key in every if key.flag], [k.variable for k in every]):
        assert len(names) == len(set(names))


def test_the_frameworks_are_those_that_exist() -> None:
    key = keys.find("framework")
    assert key is not None and sorted(key.choices) == sorted(frameworks.names())


@pytest.mark.parametrize("key", [*keys.KEYS, *rolekeys.ROLE_KEYS], ids=lambda key: key.name)
def test_every_default_is_a_value_of_its_kind(key: keys.Key) -> None:
    default_of(key)
    assert key.help and not key.help.endswith(".")


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("quue", "queue"),
        ("restart.polcy", "policy"),
        ("roles.worker.memroy", "memory"),
        ("rolls", "roles"),
        ("workers", "roles.worker.instances"),
        ("memory", "roles.worker.memory"),
        ("xyzzy", None),
    ],
)
def test_unknown_keys_have_a_nearest_name(wrong: str, near: str | None) -> None:
    assert keys.find(wrong) is None
    assert keys.nearest(wrong) == near


def test_the_default_file_is_yaml() -> None:
    table = read_table(default_file(), "tony-default.yaml")
    assert "queue" in table.entries
