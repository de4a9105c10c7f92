"""Who may know whom: imports point to a lower layer only, and foreign libraries stay in their room."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

LAYERS = {
    "tony.errors": 0,
    "tony.units": 0,
    "tony.clock": 0,
    "tony.text": 0,
    "tony.paths": 0,
    "tony.processes": 0,
    "tony.spec": 1,
    "tony.state": 1,
    "tony.records": 1,
    "tony.problems": 1,
    "tony.docker": 2,
    "tony.containers": 1,
    "tony.capacity": 1,
    "tony.events": 2,
    "tony.snapshot": 2,
    "tony.plan": 2,
    "tony.frameworks": 2,
    "tony.context": 2,
    "tony.gradient_numbers": 2,
    "tony.outcome": 2,
    "tony.protocol": 3,
    "tony.config": 3,
    "tony.storage": 3,
    "tony.hadoop": 2,
    "tony.rm": 3,
    "tony.packaging": 4,
    "tony.yarn": 4,
    "tony.localjobs": 4,
    "tony.bundle": 4,
    "tony.jobhandle": 4,
    "tony.idempotency": 4,
    "tony.clusters": 5,
    "tony.client": 5,
    "appmaster": 5,
    "executor": 5,
    "tony.asked": 6,
    "tony.ending": 6,
    "tony.localcluster": 6,
    "tony.cli": 7,
    "tony.__main__": 8,
    "tony.gradients": 8,
    "tony.airflow": 8,
}

ROOTS = ("tony.client", "tony.clusters", "appmaster", "executor")
"""Rooms of layer 5; the three roots (client side, application master, executor) do not know each other."""

FOREIGN = {
    "skein": "tony.yarn",
    "grpc": "tony.protocol",
    "google": "tony.protocol",
    "click": "tony.cli",
    "rich": "tony.cli",
    "yaml": "tony.config",
    "requests": ("tony.storage", "tony.rm", "tony.localcluster"),
    "msgspec": "tony.records",
    "psutil": ("executor.metrics", "tony.localcluster"),
    "numpy": "tony.gradients",
    "tensorflow": "tony.gradients",
    "torch": "tony.gradients",
    "horovod": "tony.gradients",
    "airflow": "tony.airflow",
}


def sources() -> list[Path]:
    """Every Python file of the product; generated stubs are left out."""
    files = [path for top in ("tony", "appmaster", "executor") for path in (ROOT / top).rglob("*.py")]
    return sorted(path for path in files if "_pb2" not in path.name)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str | None:
    """The longest entry of `LAYERS` that the module lies in."""
    matches = [name for name in LAYERS if module == name or module.startswith(name + ".")]
    return max(matches, key=len) if matches else None


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of every import, also inside functions; imports for the type checker only do not count."""
    tree = ast.parse(path.read_text())
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skipped.update(child for statement in node.body for child in ast.walk(statement))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_imports_point_to_a_lower_layer(path: Path) -> None:
    module = module_name(path)
    own = room(module)
    if own is None:
        assert module == "tony", f"{module} has no layer: name it here"
        return
    for line, name in imports(path):
        other = room(name)
        if other is None or other == own:
            continue
        where = f"{path.relative_to(ROOT)}:{line}: {own} (layer {LAYERS[own]}) imports {name}"
        client_side = {own, other} == {"tony.client", "tony.clusters"}
        assert LAYERS[other] < LAYERS[own] or LAYERS[own] == LAYERS[other] < 5 or client_side, where
        if own == "executor":
            assert LAYERS[other] <= 2 or other == "tony.protocol", where


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_foreign_libraries_stay_in_their_room(path: Path) -> None:
    module = module_name(path)
    for line, name in imports(path):
        rooms = FOREIGN.get(name.split(".")[0])
        if rooms is None:
            continue
        allowed = (rooms,) if isinstance(rooms, str) else rooms
        inside = any(module == room or module.startswith(room + ".") for room in allowed)
        assert inside, f"{path.relative_to(ROOT)}:{line}: {name} belongs in {' or '.join(allowed)}"
