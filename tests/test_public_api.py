"""What `import zoo` promises."""

import ast
import inspect
from importlib import import_module
from pathlib import Path

import pytest

import zoo

NAMES = [name for name in zoo.__all__ if name != "__version__"]


def test_the_names_that_the_design_promises_are_there():
    assert {"Recipe", "adapt", "backbones", "evaluate", "get", "load", "plan", "predict", "push"} <= set(zoo.__all__)


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_its_homes_and_documented(name):
    value = getattr(zoo, name)
    assert value is getattr(import_module(zoo._HOME[name]), name)
    assert inspect.getdoc(value) or name in ("Event", "Listener")  # types made of others


def test_every_table_of_names_says_the_same():
    assert set(NAMES) == set(zoo._HOME)
    assert dir(zoo) == sorted(zoo.__all__)
    assert len(zoo.__all__) == len(set(zoo.__all__))


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(zoo.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    assert {alias.name: node.module for node in block.body for alias in node.names} == zoo._HOME


@pytest.mark.parametrize("module", sorted(zoo._MOVED))
def test_a_module_that_was_documented_says_where_its_names_went(module):
    with pytest.raises(ImportError, match=f"no module named '{module}' any more; write: from zoo import ") as caught:
        import_module(module)
    with pytest.raises(ImportError, match="any more; write: from zoo import "):
        exec(f"from zoo import {module.removeprefix('zoo.')}")
    for name in str(caught.value).partition("import ")[2].split(", "):
        assert name in zoo.__all__


def test_what_never_was_a_module_is_just_not_found():
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'zoo\.never'"):
        import_module("zoo.never")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'zoo' has no attribute 'adpat'"):
        _ = zoo.adpat


@pytest.mark.parametrize("name", ["adapt", "backbones", "evaluate", "get", "load", "plan", "predict", "push"])
def test_public_functions_are_annotated_throughout(name):
    signature = inspect.signature(getattr(zoo, name))
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter


def test_the_version_is_the_distributions():
    import tomllib

    root = Path(zoo.__file__).resolve().parents[1]
    if not (root / "pyproject.toml").is_file():
        pytest.skip("not a checkout")
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert zoo.__version__ == project["version"]


def test_the_package_is_typed():
    assert (Path(zoo.__file__).parent / "py.typed").is_file()
