"""The directions of the imports: no circles, and no package imports one that is built on it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("kernels", "layers", "training")
BACKEND = "kernels.numba_backend"


def find_modules():
    """Return the path of each module of the program by its name, such as training.model."""
    paths = [ROOT / "run.py", *(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))]
    modules = {}
    for path in paths:
        parts = path.relative_to(ROOT).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def imports_of(name, path, modules):
    """Return the names of the modules that a module imports, at any place in its file.

    Imports in functions and under TYPE_CHECKING count. `from package import name` imports the
    module package.name if there is one, and the package otherwise. The import of a module runs the
    packages that it is in first, unless they are running because the importing module is in them.
    """
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: write absolute imports"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                imported.add(submodule if submodule in modules else node.module)
    for module in list(imported):
        parents = module.split(".")[:-1]
        packages = {".".join(parents[: i + 1]) for i in range(len(parents))}
        imported |= {package for package in packages if not is_in(name, package)}
    return imported & set(modules)


def is_in(name, package):
    """Return whether a module is a package, or in it."""
    return name == package or name.startswith(f"{package}.")


MODULES = find_modules()
IMPORTS = {name: imports_of(name, path, MODULES) for name, path in MODULES.items()}


def find_circle(imports):
    """Return modules that import each other in a circle, the first one repeated; [] without one."""
    done, chain = set(), []

    def visit(name):
        if name in chain:
            return [*chain[chain.index(name) :], name]
        if name in done:
            return []
        chain.append(name)
        for imported in sorted(imports[name]):
            circle = visit(imported)
            if circle:
                return circle
        done.add(chain.pop())
        return []

    for name in imports:
        circle = visit(name)
        if circle:
            return circle
    return []


def test_finds_a_circle():
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_modules_import_each_other_in_a_circle():
    """Nor for type checking, nor within functions."""
    assert " -> ".join(find_circle(IMPORTS)) == ""


def backwards_imports(layers):
    """Return the imports from a package to one that comes later in a list."""
    found = []
    for name, imported in IMPORTS.items():
        for rank, package in enumerate(layers):
            if is_in(name, package):
                later = layers[rank + 1 :]
                found += [
                    f"{name} -> {other}"
                    for other in sorted(imported)
                    if any(is_in(other, package) for package in later)
                ]
    return found


def test_packages_import_only_those_that_they_are_built_on():
    assert not backwards_imports(["kernels", "layers", "training", "run"])


def test_the_parts_of_training_import_only_those_that_they_are_built_on():
    """The command line uses the rest, and saving and reporting do not use the training loop."""
    parts = ["network", "saving", "reporting", "trainer", "model", "cli"]
    assert not backwards_imports([f"training.{part}" for part in parts])


def test_the_numba_backend_imports_in_one_direction():
    """From the public functions to the packed kernels, the SIMD code and the runtime."""
    parts = [f"{BACKEND}.{name}" for name in ("runtime", "simd", "packed")]
    rest = sorted(
        name
        for name in MODULES
        if is_in(name, BACKEND) and not any(is_in(name, part) for part in parts)
    )
    found = backwards_imports(parts)
    for name in MODULES:
        if any(is_in(name, part) for part in parts):
            found += [f"{name} -> {other}" for other in rest if other in IMPORTS[name]]
    assert not found


@pytest.mark.parametrize("package", ["numba", "llvmlite"])
def test_only_the_numba_backend_imports_numba(package):
    users = []
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module]
            if any(is_in(imported, package) for imported in names):
                users.append(name)
    assert all(is_in(name, BACKEND) for name in users)
