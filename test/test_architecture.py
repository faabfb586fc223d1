"""The direction of imports, the links at the top, and what packaging takes along."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from setuptools import find_packages

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "spu_ir"
LINKS = ("codegen", "dialects", "runtime")

# Layer -> what of the project it may import, besides itself. Those not listed may import all.
MAY_IMPORT = {
    "errors": set[str](),
    "extras": {"errors"},
    "targets": {"errors"},
    "dialects": set[str](),
    "frontend": {"dialects", "errors"},
    "interpreters": {"dialects", "errors"},
    "packing": {"dialects", "errors"},
    "transforms": {"dialects", "errors", "frontend", "interpreters", "packing"},
    "schedule": {"errors", "targets"},
    "runtime": {"_version", "errors", "schedule", "targets"},
    "codegen": {"_version", "dialects", "errors", "packing", "runtime.program", "schedule"},
    "media": {"errors", "extras", "runtime", "targets"},
    "zoo": {"errors", "packing", "sparsify"},
}


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything of the project that a module imports, anywhere."""
    package = ("spu_ir", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *filter(None, [node.module])))
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "spu_ir":
                yield node.lineno, name


def layer_files() -> list[Path]:
    return [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0].removesuffix(".py") in MAY_IMPORT
    ]


def forbidden(path: Path) -> list[str]:
    """The imports of a module that its layer may not have, as `file:line: name`."""
    layer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    allowed = MAY_IMPORT[layer] | {layer}
    found: list[str] = []
    for line, name in imports_of(path):
        inside = name.removeprefix("spu_ir").lstrip(".")
        if not any(inside == one or inside.startswith(f"{one}.") for one in allowed):
            found.append(f"{path.relative_to(ROOT)}:{line}: {name}")
    return found


@pytest.mark.parametrize("layer", sorted(MAY_IMPORT))
def test_imports_go_one_way(layer: str) -> None:
    files = [p for p in layer_files() if p.relative_to(PACKAGE).parts[0].split(".")[0] == layer]
    assert files, f"no module of layer {layer}"
    assert [line for path in files for line in forbidden(path)] == []


def test_a_forbidden_import_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = tmp_path / "runtime" / "bad.py"
    planted.parent.mkdir()
    planted.write_text("def f():\n    from ..transforms import tile\n    return tile\n")
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert forbidden(planted) == ["runtime/bad.py:2: spu_ir.transforms.tile"]


@pytest.mark.parametrize("name", LINKS)
def test_the_top_level_folders_are_links(name: str) -> None:
    link = ROOT / name
    assert link.is_symlink()
    assert link.resolve() == PACKAGE / name


IMPORT_ALL = """
import pkgutil, sys, spu_ir
for found in pkgutil.walk_packages(spu_ir.__path__, "spu_ir."):
    needs_more = found.name.startswith(
        ("spu_ir.sparsify.training", "spu_ir.contrib.serve_app", "spu_ir.contrib.serve_http")
    )
    if not found.name.endswith("__main__") and not needs_more:
        __import__(found.name)
for name, module in sorted(sys.modules.items()):
    print(name, getattr(module, "__file__", None) or "-")
"""


def test_no_module_is_loaded_through_a_link() -> None:
    """A second copy of an xDSL class, under another name, would break isinstance."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_ALL],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    ours = [name for name in loaded if name.split(".")[0] == "spu_ir"]
    assert len(ours) > len(MAY_IMPORT)
    assert [name for name in loaded if name.split(".")[0] in LINKS] == []
    through = [str(ROOT / link) + "/" for link in LINKS]
    assert [n for n, file in loaded.items() if file.startswith(tuple(through))] == []


def test_loading_a_model_needs_no_compiler_passes() -> None:
    code = "import sys, spu_ir.runtime.model; print('spu_ir.transforms' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_packaging_takes_the_package_and_not_the_links() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    include = project["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = find_packages(str(ROOT), include=include)
    folders = {".".join(p.parent.relative_to(ROOT).parts) for p in PACKAGE.rglob("__init__.py")}
    assert set(packages) == folders
    data = project["tool"]["setuptools"]["package-data"]
    taken = {
        file
        for package, patterns in data.items()
        for pattern in patterns
        for file in (ROOT / Path(*package.split("."))).glob(pattern)
    }
    others = {
        file for file in PACKAGE.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")
    }
    assert others <= taken
    assert PACKAGE / "py.typed" in taken
