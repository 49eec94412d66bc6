"""What `import zoo` promises."""

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
    assert inspect.getdoc(value)


def test_every_table_of_names_says_the_same():
    assert set(NAMES) == set(zoo._HOME)
    assert dir(zoo) == sorted(zoo.__all__)
    assert zoo.__all__ == sorted(zoo.__all__)


def test_type_checkers_see_the_same_names():
    source = Path(zoo.__file__).read_text(encoding="utf-8")
    block = source.partition("if TYPE_CHECKING:\n")[2].partition("\n\n")[0]
    imported = {}
    for line in block.splitlines():
        module, _, names = line.strip().removeprefix("from ").partition(" import ")
        imported |= dict.fromkeys(names.split(", "), module)
    assert imported == zoo._HOME


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
