"""First lines of scripts, as installers write them."""

from __future__ import annotations

import pytest

from tony.packaging.scripts import ACTIVATION, relocatable

HERE = b'#!/bin/sh\n\'\'\'exec\' "$(dirname -- "$(realpath -- "$0")")/python"'


@pytest.mark.parametrize(
    ("line", "options"),
    [
        (b"#!/home/ann/venv/bin/python\n", b""),
        (b"#!/home/ann/venv/bin/python3.11\n", b""),
        (b"#! /home/ann/my venv/bin/python3 -E\n", b" -E"),
        (b"#!/home/ann/venv/bin/python\r\n", b""),
        (b"#!/bin/sh\n'''exec' \"/home/a b/bin/python3\" \"$0\" \"$@\"\n' '''\n", b""),
        (b"#!/bin/sh\n'''exec' /very/long/bin/python -I \"$0\" \"$@\"\n' '''\n", b" -I"),
    ],
)
def test_a_line_that_names_an_environment_is_made_relative(line: bytes, options: bytes) -> None:
    assert relocatable(line + b"import x\n") == HERE + options + b" \"$0\" \"$@\"\n' '''\nimport x\n"


@pytest.mark.parametrize(
    "script",
    [
        b"#!/usr/bin/env python3\n",
        b"#!/usr/bin/python3\n",
        b"#!/bin/bash\n",
        b"#!/opt/tool/bin/perl\n",
        b"\x7fELF",
        b"",
        HERE + b" \"$0\" \"$@\"\n' '''\n",
    ],
)
def test_other_first_lines_stay(script: bytes) -> None:
    assert relocatable(script) is None


def test_activation_scripts_are_known_in_all_shells() -> None:
    names = ["activate", "activate.fish", "activate.csh", "Activate.ps1", "activate_this.py", "deactivate.bat"]
    assert all(ACTIVATION.fullmatch(f"bin/{name}") for name in names)
    assert ACTIVATION.fullmatch("bin/activate-global-python-argcomplete") is None
