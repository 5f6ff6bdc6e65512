"""The rules of the house: which room may import what."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STEPS = ("download", "generate", "train", "baseline", "evaluate", "gate", "recommend", "publish")


def imported_modules(path: Path, module_level_only: bool = False) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if module_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module or ""


def product_files() -> list[Path]:
    return sorted([*ROOT.glob("components/**/*.py"), *ROOT.glob("pipelines/**/*.py")])


def files_importing(package: str) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for path in product_files()
        if any(name == package or name.startswith(f"{package}.") for name in imported_modules(path))
    }


def test_only_component_files_and_pipelines_import_kfp() -> None:
    allowed = {f"components/{step}/component.py" for step in STEPS}
    found = {name for name in files_importing("kfp") if not name.startswith("pipelines/")}
    assert found == allowed


@pytest.mark.parametrize(
    ("package", "rooms"),
    [
        ("apache_beam", ("components/generate/",)),
        ("tensorflow", ("components/train/", "components/evaluate/", "components/recommend/", "components/scoring/")),
        ("keras", ("components/train/",)),
        ("jinja2", ("components/report/",)),
        ("google.cloud.aiplatform", ("components/publish/", "pipelines/")),
        ("implicit", ("components/baseline/",)),
    ],
)
def test_heavy_packages_stay_in_their_rooms(package: str, rooms: tuple[str, ...]) -> None:
    found = files_importing(package)
    assert found, f"nothing imports {package}: is the rule still about something?"
    assert not {name for name in found if not name.startswith(rooms)}


def test_the_shared_room_needs_numpy_alone() -> None:
    for path in sorted((ROOT / "components/ncf").glob("*.py")):
        for name in imported_modules(path):
            package = name.split(".")[0]
            is_ours = name.startswith("components.ncf")
            assert is_ours or package == "numpy" or package in sys.stdlib_module_names, f"{path.name} imports {name}"


def test_the_room_for_pages_needs_no_step() -> None:
    allowed = {"jinja2", "markupsafe", "numpy", *sys.stdlib_module_names}
    paths = sorted((ROOT / "components/report").glob("**/*.py"))
    assert paths
    for path in paths:
        for name in imported_modules(path):
            is_ours = name.startswith("components.report.")
            assert is_ours or name.split(".")[0] in allowed, f"{path.name} imports {name}"


def test_the_room_for_scoring_needs_no_step() -> None:
    allowed = {"tensorflow", "numpy", *sys.stdlib_module_names}
    for path in sorted((ROOT / "components/scoring").glob("*.py")):
        for name in imported_modules(path):
            is_ours = name.startswith(("components.scoring", "components.ncf"))
            assert is_ours or name.split(".")[0] in allowed, f"{path.name} imports {name}"


@pytest.mark.parametrize("step", STEPS)
def test_steps_never_import_each_other(step: str) -> None:
    shared = ("components.ncf", "components.report", "components.scoring", "components.images")
    allowed = (f"components.{step}", *shared)
    for path in (ROOT / "components" / step).rglob("*.py"):
        ours = {name for name in imported_modules(path) if name.startswith(("components", "pipelines"))}
        assert not {name for name in ours if not name.startswith(allowed)}, path


@pytest.mark.parametrize("step", STEPS)
def test_a_component_is_an_interface(step: str) -> None:
    path = ROOT / f"components/{step}/component.py"
    assert set(imported_modules(path, module_level_only=True)) == {"kfp", "components.images"}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert function.name == step
    assert not function.args.defaults, "defaults live in pipelines/presets.py"
    assert not function.args.kw_defaults
    flow = (ast.For, ast.While, ast.If, ast.Try, ast.FunctionDef)
    logic = [node for node in ast.walk(function) if isinstance(node, flow) and node is not function]
    # evaluate copies its metrics into KFP's own artifact: one loop.
    assert len(logic) <= (1 if step == "evaluate" else 0)


def test_steps_do_not_know_where_they_run() -> None:
    for path in sorted(ROOT.glob("components/**/*.py")):
        text = path.read_text(encoding="utf-8")
        # The registry that publish writes to is what it is about; where that registry is are parameters.
        registry = ("aiplatform",) if path.parent.name == "publish" else ()
        for word in ("/gcs/", "aiplatform", "machine_type", "accelerator_type", "us-central1"):
            assert word not in text or word in registry, f"{path} mentions {word}"


def test_importing_does_nothing_but_define() -> None:
    """No call at module level beyond constants: no environment look-up, no logging set-up, no device."""
    for path in product_files():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            assert not isinstance(node, (ast.For, ast.While, ast.With, ast.Try)), f"{path}:{node.lineno}"
            assert not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)), f"{path}:{node.lineno}"


def test_init_files_are_empty() -> None:
    for path in product_files():
        assert path.name != "__init__.py" or path.stat().st_size == 0, path


def test_product_files_stay_readable() -> None:
    for path in product_files():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 450, path
