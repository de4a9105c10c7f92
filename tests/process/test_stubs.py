"""The generated stubs are those of the .proto beside them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROTO = "tony/protocol/appmaster.proto"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stubs")
    outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    command = [sys.executable, "-W", "ignore", "-m", "grpc_tools.protoc", "-I.", *outputs, PROTO]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    return folder / "tony" / "protocol"


@pytest.mark.parametrize("name", ["appmaster_pb2.py", "appmaster_pb2.pyi", "appmaster_pb2_grpc.py"])
def test_stubs_are_generated_from_this_proto(fresh: Path, name: str) -> None:
    assert (fresh / name).read_text() == (ROOT / "tony" / "protocol" / name).read_text(), "run: make generated"
