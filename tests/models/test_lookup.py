"""Plugins are faked with files: a .dist-info folder and a package, as an installer would leave them."""

import importlib.metadata
import sys
from pathlib import Path

import pytest

from zoo.errors import PluginError
from zoo.models import lookup
from zoo.models.plugins import discovery

MANIFEST = """
api: 1
name: {name}
summary: made for a test
groups: [{{name: stem, match: 'conv1\\.'}}, {{name: head, match: 'fc\\.'}}]
backbones:
"""
BACKBONE = """
  - name: {backbone}
    arch: {backbone}
    params: 10
    input: 32
    weights: [{{name: first, source: timm, license: mit}}, {{name: second, source: timm}}]
"""


class Site:
    """A site-packages folder to install fakes into."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def dist(self, distribution: str, entry_points: str | bytes, version: str = "1.0", metadata: bool = True) -> Path:
        folder = self.root / f"{distribution.replace('-', '_')}-{version}.dist-info"
        folder.mkdir(parents=True)
        if metadata:
            (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        content = entry_points.encode() if isinstance(entry_points, str) else entry_points
        (folder / "entry_points.txt").write_bytes(content)
        return folder

    def plugin(
        self, name: str, backbones: list[str], *, distribution: str = "", version: str = "1.0", extra: str = ""
    ) -> Path:
        """A working plugin `name`, in package `<distribution>`, whose import would fail the test."""
        distribution = distribution or f"zoo-{name}"
        package = distribution.replace("-", "_")
        self.dist(distribution, f"[zoo.plugins]\n{name} = {package}:zoo.yaml\n", version)
        text = MANIFEST.format(name=name) + "".join(BACKBONE.format(backbone=item) for item in backbones) + extra
        return self.package(package, text)

    def package(self, package: str, manifest: str, code: str = "raise AssertionError('listing imported it')") -> Path:
        folder = self.root / package
        folder.mkdir()
        (folder / "__init__.py").write_text(code)
        (folder / "zoo.yaml").write_text(manifest)
        return folder


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Only what a test installs is there."""
    root = tmp_path / "site"
    root.mkdir()
    monkeypatch.syspath_prepend(str(root))
    real = importlib.metadata.distributions
    monkeypatch.setattr(discovery, "distributions", lambda: real(path=[str(root), str(tmp_path / "later")]))
    before = set(sys.modules)
    lookup.discover.cache_clear()
    yield Site(root)
    lookup.discover.cache_clear()
    for name in set(sys.modules) - before:
        if name.startswith("zoo_"):
            del sys.modules[name]


def only_fault() -> lookup.PluginFault:
    found = lookup.discover()
    assert found.plugins == ()
    (fault,) = found.faults
    assert "\n" not in str(fault)
    return fault


def test_nothing_installed(site):
    assert lookup.discover() == lookup.Discovery((), ())
    assert lookup.backbones() == ()
    with pytest.raises(PluginError, match="no plugin named 'fir' is installed\n  fix: installed: none"):
        lookup.get("fir/fir50")


def test_plugins_are_sorted_and_keep_their_backbones_order(site):
    site.plugin("pine", ["pine2", "pine1"])
    site.plugin("fir", ["fir1"], version="3.4")
    found = lookup.discover()
    assert [plugin.name for plugin in found.plugins] == ["fir", "pine"]
    assert found.faults == ()
    assert [spec.full_name for spec in lookup.backbones()] == ["fir/fir1", "pine/pine2", "pine/pine1"]
    assert (found.plugins[0].distribution, found.plugins[0].version) == ("zoo-fir", "3.4")


def test_discovery_imports_nothing(site):
    site.plugin("fir", ["fir1"])
    assert lookup.get("fir1").plugin == "fir"
    assert "zoo_fir" not in sys.modules


@pytest.mark.parametrize(
    ("manifest", "cause"),
    [
        ("api: [", "is not valid YAML: "),
        ("api: 1\nname: pine\n", "zoo.yaml has 2 fault(s): name: is 'pine', but the entry point is named 'fir'"),
        ("- 1\n", "must hold a mapping: it holds list"),
    ],
)
def test_a_broken_manifest_is_one_line_and_hides_no_other_plugin(site, manifest, cause):
    site.plugin("oak", ["oak1"])
    site.dist("zoo-fir", "[zoo.plugins]\nfir = zoo_fir:zoo.yaml\n", "0.3")
    site.package("zoo_fir", manifest)
    found = lookup.discover()
    assert [plugin.name for plugin in found.plugins] == ["oak"]
    (fault,) = found.faults
    assert (fault.name, fault.distribution, fault.version, fault.status) == ("fir", "zoo-fir", "0.3", "error")
    assert str(fault).startswith("plugin 'fir' from zoo-fir 0.3 is not usable: ") and "\n" not in str(fault)
    assert cause in str(fault)
    assert lookup.get("oak1").name == "oak1"


def test_a_newer_contract_is_incompatible_and_says_upgrade(site):
    site.dist("zoo-fir", "[zoo.plugins]\nfir = zoo_fir:zoo.yaml\n")
    site.package("zoo_fir", "api: 2\nname: fir\nnovelty: 1\n")
    fault = only_fault()
    assert fault.status == "incompatible"
    assert str(fault) == (
        "plugin 'fir' from zoo-fir 1.0 is not usable: the manifest asks for plugin api 2, this adaptzoo reads up to 1 "
        "(upgrade adaptzoo: pip install --upgrade adaptzoo)"
    )


@pytest.mark.parametrize("value", ["zoo_fir", "zoo_fir.models:zoo.yaml", "zoo_fir:"])
def test_an_entry_point_that_names_no_file(site, value):
    site.dist("zoo-fir", f"[zoo.plugins]\nfir = {value}\n")
    site.package("zoo_fir", "")
    assert only_fault().cause == (f"the entry point must be 'package:zoo.yaml' with a top-level package, not {value!r}")


def test_a_manifest_that_is_not_there(site):
    site.dist("zoo-fir", "[zoo.plugins]\nfir = zoo_fir:zoo.yml\n")
    site.package("zoo_fir", "")
    fault = only_fault()
    assert (fault.cause, fault.fix) == (
        "the package 'zoo_fir' has no file 'zoo.yml'",
        "reinstall it, or: zoo plugins uninstall zoo-fir",
    )


def test_half_uninstalled_the_package_is_gone(site):
    site.dist("zoo-fir", "[zoo.plugins]\nfir = zoo_fir:zoo.yaml\n")
    assert str(only_fault()) == (
        "plugin 'fir' from zoo-fir 1.0 is not usable: the package 'zoo_fir' is not there: it may be half-uninstalled "
        "(reinstall it, or: zoo plugins uninstall zoo-fir)"
    )


def test_half_uninstalled_only_bytecode_is_left(site):
    site.dist("zoo-fir", "[zoo.plugins]\nfir = zoo_fir:zoo.yaml\n")
    (site.root / "zoo_fir" / "__pycache__").mkdir(parents=True)
    assert only_fault().cause == "the package 'zoo_fir' has no file 'zoo.yaml'"


def test_half_uninstalled_the_metadata_is_gone(site):
    site.dist("zoo-fir", "[zoo.plugins]\nfir = zoo_fir:zoo.yaml\n", metadata=False)
    site.dist("zoo-oak", "[zoo.plugins]\noak = zoo_oak:zoo.yaml\n", metadata=False)
    found = lookup.discover()
    assert [(fault.distribution, fault.version) for fault in found.faults] == [
        ("zoo-fir", "(version unknown)"),
        ("zoo-oak", "(version unknown)"),
    ]


@pytest.mark.parametrize("content", ["[zoo.plugins]\nfir\n", "[zoo.plugins\nfir = a:b\n[zoo.plugins]\nx\n"])
def test_an_entry_points_file_that_cannot_be_parsed(site, content):
    site.plugin("oak", ["oak1"])
    site.dist("zoo-fir", content)
    found = lookup.discover()
    assert [plugin.name for plugin in found.plugins] == ["oak"]
    (fault,) = found.faults
    assert str(fault).startswith(
        "plugin 'zoo-fir' from zoo-fir 1.0 is not usable: its entry_points.txt cannot be read: "
    )
    assert fault.fix == "reinstall it, or: zoo plugins uninstall zoo-fir"


def test_somebody_elses_broken_entry_points_are_not_our_news(site):
    site.plugin("oak", ["oak1"])
    site.dist("other", "[console_scripts]\nfir\n")
    site.dist("latin", b"[console_scripts]\n\xe9 = a:b\n")
    found = lookup.discover()
    assert [plugin.name for plugin in found.plugins] == ["oak"]
    assert found.faults == ()


def test_an_earlier_folder_of_the_path_shadows_a_later_one(site, tmp_path):
    site.plugin("fir", ["fir1"], version="2.0")
    Site(tmp_path / "later").dist("Zoo.Fir", "[zoo.plugins]\nfir = zoo_fir:zoo.yaml\n", "1.0")
    found = lookup.discover()
    assert found.faults == ()
    assert [plugin.version for plugin in found.plugins] == ["2.0"]


def test_distributions_with_a_common_beginning_do_not_shadow_each_other(site):
    for distribution in ("zoo-fir", "zoo-fir-2", "zoo"):
        site.dist(distribution, f"[zoo.plugins]\n{distribution} = gone:zoo.yaml\n")
    assert [fault.name for fault in lookup.discover().faults] == ["zoo", "zoo-fir", "zoo-fir-2"]


def test_one_plugin_name_from_two_distributions(site):
    site.plugin("oak", ["oak1"])
    site.plugin("fir", ["fir1"], distribution="zoo-fir")
    site.plugin("fir", ["fir2"], distribution="other-fir", version="7")
    found = lookup.discover()
    assert [plugin.name for plugin in found.plugins] == ["oak"]
    assert [(fault.distribution, fault.cause) for fault in found.faults] == [
        ("other-fir", "its name is claimed by other-fir 7 and zoo-fir 1.0"),
        ("zoo-fir", "its name is claimed by other-fir 7 and zoo-fir 1.0"),
    ]
    with pytest.raises(PluginError) as caught:
        lookup.get("fir/fir1")
    assert "'fir/fir1' cannot be used" in str(caught.value)
    assert "its name is claimed by other-fir 7 and zoo-fir 1.0" in caught.value.why
    assert caught.value.fix == "zoo plugins uninstall other-fir or zoo plugins uninstall zoo-fir"


def test_one_backbone_name_from_two_plugins_is_an_error_at_use(site):
    site.plugin("fir", ["tree", "fir1"])
    site.plugin("oak", ["tree"])
    assert lookup.get("fir1").plugin == "fir"
    assert lookup.get("oak/tree").plugin == "oak"
    for name in ("tree", "tree.first"):
        with pytest.raises(PluginError) as caught:
            lookup.get(name)
        assert caught.value.what == "'tree' is offered by two plugins: zoo-fir (fir/tree) and zoo-oak (oak/tree)"
        assert caught.value.fix == "write fir/tree or oak/tree"


@pytest.mark.parametrize("name", ["fir50", "fir/fir50"])
def test_names_with_and_without_a_weights_tag(site, name):
    site.plugin("fir", ["fir50"])
    assert [weights.name for weights in lookup.get(name).weights] == ["first", "second"]
    assert [weights.name for weights in lookup.get(f"{name}.second").weights] == ["second", "first"]
    moved = lookup.get(f"{name}.second").weights[1]
    assert moved.license == "mit", "moving the default keeps what the manifest says of the others"


def test_a_tag_that_the_manifest_does_not_list_is_left_to_timm(site):
    site.plugin("fir", ["fir50"])
    first = lookup.get("fir50.a1_in1k.v2").weights[0]
    assert (first.name, first.source) == ("a1_in1k.v2", "timm")


def test_a_wrong_name_suggests_the_nearest_and_their_plugin(site):
    site.plugin("fir", ["fir50", "fir101"])
    with pytest.raises(PluginError) as caught:
        lookup.get("fir5")
    assert caught.value.what == "no installed plugin has a backbone named 'fir5'"
    assert caught.value.fix.startswith("did you mean fir50 (plugin fir)")


def test_a_wrong_plugin_suggests_the_nearest(site):
    site.plugin("fir", ["fir50"])
    with pytest.raises(PluginError) as caught:
        lookup.get("fri/fir50")
    assert str(caught.value) == "no plugin named 'fri' is installed\n  fix: did you mean fir/…? installed: fir"


def test_a_backbone_of_another_plugin_names_the_plugin_that_has_it(site):
    site.plugin("fir", ["fir50"])
    site.plugin("oak", ["oak1"])
    with pytest.raises(PluginError) as caught:
        lookup.get("oak/fir50")
    assert caught.value.fix == "did you mean fir50 (plugin fir)?"


def test_a_backbone_of_a_plugin_that_is_not_installed_names_it(site, tmp_path, monkeypatch):
    site.plugin("fir", ["larch5"])
    file = tmp_path / "registry.yaml"
    file.write_text("plugins: {larch: {requirement: zoo-larch, summary: Larches, backbones: [larch50]}}")
    monkeypatch.setenv("ZOO_REGISTRY", str(file))
    with pytest.raises(PluginError) as caught:
        lookup.get("larch50.a1_in1k")
    assert caught.value.what == "no installed plugin has a backbone named 'larch50.a1_in1k'"
    assert caught.value.why == "larch50 is in the plugin larch, which is not installed (Larches)"
    assert caught.value.fix == "zoo plugins install larch"
    with pytest.raises(PluginError) as caught:
        lookup.get("larch/larch50")
    assert caught.value.what == "no plugin named 'larch' is installed"
    assert caught.value.fix == "zoo plugins install larch"
    file.write_text("nonsense")
    with pytest.raises(PluginError, match="did you mean larch5 "):
        lookup.get("larch50")


def test_a_broken_plugins_backbone_says_what_is_broken(site):
    site.dist("zoo-fir", "[zoo.plugins]\nfir = zoo_fir:zoo.yaml\n")
    with pytest.raises(PluginError) as caught:
        lookup.get("fir/fir50")
    assert caught.value.what == "'fir/fir50' cannot be used"
    assert "the package 'zoo_fir' is not there" in caught.value.why
    assert caught.value.fix == "reinstall it, or: zoo plugins uninstall zoo-fir"


def test_a_name_that_nobody_has_mentions_the_plugins_that_are_broken(site):
    site.plugin("oak", ["oak1"])
    site.dist("zoo-fir", "[zoo.plugins]\nfir = zoo_fir:zoo.yaml\n")
    with pytest.raises(PluginError) as caught:
        lookup.get("fir50")
    assert caught.value.why == "these plugins are installed but not usable: fir (see `zoo plugins list`)"


def test_registering_imports_the_module_once_it_is_needed(site):
    site.plugin("fir", ["fir1"], extra="module: zoo_trees\n")
    (site.root / "zoo_trees.py").write_text("")
    spec = lookup.get("fir1")
    assert "zoo_trees" not in sys.modules
    lookup.register_architectures(spec)
    assert "zoo_trees" in sys.modules


def test_a_spec_without_module_imports_nothing(site):
    site.plugin("fir", ["fir1"])
    lookup.register_architectures(lookup.get("fir1"))
    assert "zoo_fir" not in sys.modules


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
        ("import not_there_at_all", "ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def (", "SyntaxError: "),
    ],
)
def test_a_module_that_fails_is_named_with_its_distribution(site, code, why):
    site.plugin("fir", ["fir1"], version="0.9", extra="module: zoo_trees\n")
    (site.root / "zoo_trees.py").write_text(code)
    with pytest.raises(PluginError) as caught:
        lookup.register_architectures(lookup.get("fir1"))
    assert caught.value.what == "fir/fir1 cannot be built: importing zoo_trees from zoo-fir 0.9 failed"
    assert caught.value.why.startswith(why)
    assert caught.value.fix == "report it to the authors of zoo-fir, or: zoo plugins uninstall zoo-fir"


def test_zoo_plugins_limits_what_is_used(site, monkeypatch):
    site.plugin("fir", ["fir1"])
    site.plugin("oak", ["oak1"])
    site.dist("zoo-pine", "[zoo.plugins]\npine = zoo_pine:zoo.yaml\n")
    monkeypatch.setenv("ZOO_PLUGINS", "fir")
    found = lookup.discover()
    assert ([plugin.name for plugin in found.plugins], found.faults) == (["fir"], ())
    assert [plugin.name for plugin in discovery.scan().plugins] == ["fir", "oak"]
    with pytest.raises(PluginError) as caught:
        lookup.get("oak1")
    assert caught.value.why == "it is in the plugin oak, which ZOO_PLUGINS leaves out"
    assert caught.value.fix == "add it to ZOO_PLUGINS, or unset ZOO_PLUGINS"
    with pytest.raises(PluginError, match="the plugin 'oak' is not used\n  why: ZOO_PLUGINS leaves it out"):
        lookup.get("oak/oak1")


def test_zoo_plugins_with_a_name_that_is_not_installed(site, monkeypatch):
    site.plugin("fir", ["fir1"])
    monkeypatch.setenv("ZOO_PLUGINS", "fir, elm")
    with pytest.raises(PluginError) as caught:
        lookup.discover()
    assert caught.value.what == "ZOO_PLUGINS names 'elm', which is not installed"
    assert caught.value.fix == "correct or unset ZOO_PLUGINS; installed: fir"


def test_strict_plugins_makes_a_broken_one_an_error(site, monkeypatch):
    site.plugin("fir", ["fir1"])
    site.dist("zoo-oak", "[zoo.plugins]\noak = zoo_oak:zoo.yaml\n")
    monkeypatch.setenv("ZOO_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError) as caught:
        lookup.get("fir1")
    assert caught.value.what.startswith(
        "plugin 'oak' from zoo-oak 1.0 is not usable: the package 'zoo_oak' is not there"
    )
    assert caught.value.fix == "zoo plugins uninstall zoo-oak, or unset ZOO_STRICT_PLUGINS"
    lookup.discover.cache_clear()
    monkeypatch.setenv("ZOO_STRICT_PLUGINS", "0")
    assert lookup.get("fir1").name == "fir1"


def test_what_a_saved_model_requires(site, tmp_path, monkeypatch):
    site.plugin("fir", ["fir1"], extra="module: zoo_trees\n")
    needs = {"distribution": "zoo-larch", "version": "2.0", "module": "zoo_larch.models"}
    assert lookup.required({**needs, "module": "zoo_trees"}, "the model x").plugin == "fir"
    with pytest.raises(PluginError) as caught:
        lookup.required(needs, "the model x")
    assert caught.value.what == "the model x needs the plugin zoo-larch 2.0"
    assert "install it only if you trust them" in caught.value.why
    assert caught.value.fix == "zoo plugins install zoo-larch"
    file = tmp_path / "registry.yaml"
    file.write_text("plugins: {larch: {requirement: Zoo_Larch, summary: Larches, published: false}}")
    monkeypatch.setenv("ZOO_REGISTRY", str(file))
    with pytest.raises(PluginError, match=r"no index has Zoo_Larch: .* zoo plugins install PATH"):
        lookup.required(needs, "the model x")
    for odd in ("text", {"module": None}, {**needs, "distribution": "x; rm -rf /"}):
        with pytest.raises(PluginError, match="needs a plugin without a valid name"):
            lookup.required(odd, "the model x")
    site.dist("zoo-larch", "[zoo.plugins]\nlarch = zoo_larch:zoo.yaml\n")
    with pytest.raises(PluginError, match="it may be half-uninstalled"):
        lookup.required(needs, "the model x")


class TestDynamic:
    @pytest.fixture(autouse=True)
    def any_timm(self, site):
        pytest.importorskip("timm")
        site.plugin("fir", ["resnet18"])
        site.dist("zoo-any", "[zoo.plugins]\ntimm = zoo_any:zoo.yaml\n", "1.1")
        site.package("zoo_any", "api: 1\nname: timm\ndynamic: timm\n")

    def test_a_static_backbone_comes_first(self):
        assert lookup.get("resnet18").plugin == "fir"
        assert lookup.get("timm/resnet18").plugin == "timm"

    def test_any_architecture_with_its_tags(self):
        spec = lookup.get("timm/resnet50")
        assert (spec.full_name, spec.arch, spec.groups, spec.input) == ("timm/resnet50", "resnet50", (), 224)
        assert (spec.distribution, spec.version, spec.params) == ("zoo-any", "1.1", None)
        assert spec.weights[0].name == "a1_in1k" and spec.weights[0].license == "apache-2.0"
        assert {weights.source for weights in spec.weights} == {"timm"}
        tagged = lookup.get("timm/resnet50.tv_in1k")
        assert tagged.weights[0].name == "tv_in1k"
        assert sorted(w.name for w in tagged.weights) == sorted(w.name for w in spec.weights)

    def test_a_short_name_reaches_it_when_no_manifest_has_it(self):
        assert lookup.get("mobilenetv2_100").full_name == "timm/mobilenetv2_100"

    def test_an_architecture_without_weights(self):
        import timm

        bare = next(arch for arch in timm.list_models() if not timm.list_pretrained(f"{arch}.*"))
        assert lookup.get(f"timm/{bare}").weights == ()

    def test_a_wrong_name_suggests_timms_own(self):
        with pytest.raises(PluginError) as caught:
            lookup.get("timm/mobilenetv2_10")
        assert caught.value.what == "no installed plugin has a backbone named 'timm/mobilenetv2_10'"
        assert "timm/mobilenetv2_100" in caught.value.fix

    def test_nothing_near(self):
        with pytest.raises(PluginError) as caught:
            lookup.get("qqqqqqqqqqqq")
        assert caught.value.fix == "see `zoo list`, or name any timm architecture as timm/<architecture>"

    @pytest.mark.parametrize(
        ("name", "fix"),
        [("resnet1B", "did you mean resnet18 (plugin fir)?"), ("timm/resnet1B", "did you mean timm/resnet"),
         ("timm/convnext_tinny.fb_in1k", "did you mean timm/convnext_tiny, "),
         ("convnext_tinny", "did you mean timm/convnext_tiny, "),
         ("fir/convnext_tinny", "see `zoo list`, or name any timm architecture as timm/<architecture>")],
    )  # fmt: skip
    def test_the_nearest_of_the_plugins_and_of_timm(self, name, fix):
        with pytest.raises(PluginError) as caught:
            lookup.get(name)
        assert caught.value.fix.startswith(fix)
        for one in caught.value.fix.removeprefix("did you mean ").removesuffix("?").split(", "):
            assert "`" in fix or lookup.get(one.partition(" ")[0])
