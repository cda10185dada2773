"""Imports point one way, and each documented class is defined in the module the documents name."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import networkx
import pytest

from cloudrepo.host.programs import HELPER_PARTS

CHECKOUT = Path(__file__).resolve().parent.parent

# From the ground up. A module imports from lower lines and from its own package only.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"cloudrepo", "lab"}),
    frozenset({"models"}),
    frozenset({"database", "remote_executor", "health_monitor"}),
    frozenset({"worker_discovery", "deployment_api", "vlan_manager", "vm_launcher"}),
    frozenset({"control"}),
    frozenset({"orchestrator_api"}),
    frozenset({"examples"}),
    frozenset({"cli"}),
    frozenset({"main"}),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

DOCUMENTED = {
    "orchestrator_api": ("OrchestratorAPI",),
    "deployment_api": ("DeploymentAPI", "QCOWManager"),
    "vlan_manager": ("VLANManager",),
    "vm_launcher": ("VMLauncher",),
    "remote_executor": ("RemoteExecutor",),
    "database": ("Database",),
    "worker_discovery": ("WorkerDiscovery",),
    "health_monitor": ("HealthMonitor",),
    "models": ("User", "Flavor", "Interface", "Link", "VM", "Slice"),
}


def sources() -> list[Path]:
    """Every source file of the project but its tests and benchmarks."""
    packages = [path for name in LEVEL for path in (CHECKOUT / name).rglob("*.py")]
    return sorted([*CHECKOUT.glob("*.py"), *packages])


def module_name(path: Path) -> str:
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Dotted names of everything a file imports when it runs, late imports too; not what is for types only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for child in block.body
        for node in ast.walk(child)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_module_has_a_layer() -> None:
    names = {path.relative_to(CHECKOUT).with_suffix("").parts[0] for path in CHECKOUT.glob("*.py")}
    assert names <= set(LEVEL)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_imports_point_down(path: Path) -> None:
    own = path.relative_to(CHECKOUT).with_suffix("").parts[0]
    for name in imports(path):
        other = name.partition(".")[0]
        if other in LEVEL and other != own:
            assert LEVEL[other] < LEVEL[own], f"{own} imports {name}"


def test_there_is_no_ring_of_imports() -> None:
    known = {module_name(path) for path in sources()}
    graph: networkx.DiGraph[str] = networkx.DiGraph()
    for path in sources():
        graph.add_edges_from((module_name(path), name) for name in imports(path) if name in known)
    # a package whose __init__ is empty but for its docstring is imported with each of its modules
    assert [sorted(ring) for ring in networkx.strongly_connected_components(graph) if len(ring) > 1] == []


def test_what_is_sent_needs_only_the_standard_library() -> None:
    """It is sent to hosts that have nothing of ours."""
    for path in (CHECKOUT / "cloudrepo" / "host" / f"{name}.py" for name in (*HELPER_PARTS, "hardening")):
        outside = {name.partition(".")[0] for name in imports(path) if not name.startswith("cloudrepo.host")}
        assert outside - sys.stdlib_module_names == set(), f"{path.name} imports {outside}"


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in DOCUMENTED.items() for name in names])
def test_a_documented_class_is_defined_in_its_module(module: str, name: str) -> None:
    tree = ast.parse((CHECKOUT / f"{module}.py").read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}


def test_no_pause_and_no_deadline_goes_by_the_wall_clock() -> None:
    """Which jumps. Stamps for people are made by `datetime.now(UTC)`; nothing is counted from them within a boot."""
    found = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("time.time", "datetime.utcnow"):
                found.append(f"{module_name(path)}:{node.lineno}")
    assert found == []


def test_long_functions_and_files_are_split() -> None:
    too_long = []
    for path in sources():
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > 500:
            too_long.append(f"{module_name(path)}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if ast.get_docstring(node) is not None:  # what explains a function does not make it long
                    length -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
                if length > 60:
                    too_long.append(f"{module_name(path)}.{node.name}: {length} lines")
    assert too_long == []
