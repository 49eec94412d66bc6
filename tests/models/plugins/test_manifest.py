from pathlib import Path

import pytest

from zoo.base.untrusted import parse_yaml, read_yaml
from zoo.errors import ManifestError
from zoo.models.plugins.manifest import API, read_manifest

GOOD = """
api: 1
name: fir
summary: Firs and pines
module: fir.models
groups:
  - {name: stem, match: '(?:conv1|bn1)\\.'}
  - {name: head, match: 'fc\\.'}
backbones:
  - name: fir50
    arch: fir50_arch
    params: 1000
    input: 224
    weights:
      - {name: a1_in1k, source: timm, license: apache-2.0}
      - {name: own, source: file, path: weights/own.safetensors, num_classes: 2, input: 64, labels: [cat, dog],
         mean: [0.5, 0.5, 0.5], std: [1, 1, 1], crop_pct: 0.9, interpolation: bicubic, model_args: {in_chans: 3}}
      - {name: net, source: url, url: 'https://example.org/net.pth'}
      - {name: hub, source: hf-hub, repo: me/fir@main}
  - name: fir11
    arch: fir11_arch
    params: 500
    input: 32
    groups:
      - {name: head, match: ''}
"""
ROW = """
api: 1
name: fir
groups: [{name: head, match: ''}]
backbones:
"""


def read(folder: Path, text: str, entry_point: str = "fir"):
    file = folder / "zoo.yaml"
    file.write_text(text, encoding="utf-8")
    return read_manifest(file, entry_point=entry_point, distribution="zoo-fir", version="2.1")


def faults(folder: Path, text: str) -> str:
    with pytest.raises(ManifestError) as caught:
        read(folder, text)
    return str(caught.value)


def test_a_good_manifest_becomes_records(tmp_path):
    plugin = read(tmp_path, GOOD)
    assert (plugin.name, plugin.summary, plugin.api, plugin.dynamic) == ("fir", "Firs and pines", 1, None)
    assert (plugin.distribution, plugin.version, plugin.root) == ("zoo-fir", "2.1", tmp_path)
    fir50, fir11 = plugin.backbones
    assert (fir50.full_name, fir50.arch, fir50.params, fir50.input) == ("fir/fir50", "fir50_arch", 1000, 224)
    assert (fir50.module, fir50.distribution, fir50.version) == ("fir.models", "zoo-fir", "2.1")
    assert [(group.name, group.match) for group in fir50.groups] == [("stem", r"(?:conv1|bn1)\."), ("head", r"fc\.")]
    assert [group.name for group in fir11.groups] == ["head"], "a backbone's own groups replace the family's"
    assert [weights.name for weights in fir50.weights] == ["a1_in1k", "own", "net", "hub"]
    own = fir50.weights[1]
    assert own.path == str(tmp_path.resolve() / "weights/own.safetensors")
    assert (own.num_classes, own.input, own.crop_pct, own.interpolation) == (2, 64, 0.9, "bicubic")
    assert (own.mean, own.std, own.labels, own.model_args) == ((0.5,) * 3, (1.0,) * 3, ("cat", "dog"), {"in_chans": 3})
    assert fir11.weights == ()


def test_a_dynamic_manifest_needs_no_backbones(tmp_path):
    plugin = read(tmp_path, "api: 1\nname: fir\ndynamic: timm\n")
    assert (plugin.dynamic, plugin.backbones, plugin.summary) == ("timm", (), "")


def test_every_fault_is_reported_at_once(tmp_path):
    text = faults(
        tmp_path,
        """
api: one
name: pine
sumary: typo
groups:
  - {name: stem, match: '(conv'}
  - {name: body, match: '(a)b'}
  - {name: body, match: x, note: 1}
  - stem
backbones:
  - {name: "fir 50", arch: 7, params: -1, weights: [{source: ftp}, {name: w, source: file}, 3]}
  - fir
  - {name: twin, arch: a, params: 1, input: 1}
  - {name: twin, arch: a, params: true, input: 1.5}
""",
    )
    for part in (
        "zoo.yaml has ",
        "api: must be a whole number",
        "name: is 'pine', but the entry point is named 'fir'",
        "sumary: unknown key",
        "groups[0].match: missing )",
        "groups[1].match: write (?:…) instead of a capture group",
        "groups[2].note: unknown key",
        "groups[3]: needs the two texts `name` and `match`",
        "groups: group 'body' is given more than once",
        "groups: the last group must be named 'head', not 'body'",
        "backbones[0] (fir 50).name: 'fir 50' has characters that a name cannot have",
        "backbones[0] (fir 50).arch: must be a text",
        "backbones[0] (fir 50).params: must be a positive whole number",
        "backbones[0] (fir 50).input: is missing",
        "backbones[0] (fir 50).weights[0].name: is missing",
        "backbones[0] (fir 50).weights[0].source: must be one of timm, file, hf-hub, url, not 'ftp'",
        "backbones[0] (fir 50).weights[1]: source 'file' needs `path`",
        "backbones[0] (fir 50).weights[2]: must be a mapping",
        "backbones[1]: must be a mapping",
        "backbones[3] (twin).params: must be a positive whole number",
        "backbones[3] (twin).input: must be a positive whole number",
        "backbones: 'twin' is given more than once",
    ):
        assert part in text, part


@pytest.mark.parametrize(
    ("weights", "fault"),
    [
        ("{name: w, source: url}", "source 'url' needs `url`"),
        ("{name: w, source: hf-hub}", "source 'hf-hub' needs `repo`"),
        ("{name: w, source: file, path: ../../secret}", ".path: must lie inside the plugin's package"),
        ("{name: w, source: file, path: /etc/passwd}", ".path: must lie inside the plugin's package"),
        ("{name: w, source: timm, sha256: abc}", ".sha256: must be 64 hexadecimal digits"),
        ("{name: w, source: timm, mean: [a]}", ".mean: must be a list of numbers"),
        ("{name: w, source: timm, std: [.nan, 1, 1]}", ".std: must be a list of numbers"),
        ("{name: w, source: timm, std: []}", ".std: must be a list of numbers"),
        ("{name: w, source: timm, crop_pct: 0}", ".crop_pct: must be a number above 0"),
        ("{name: w, source: timm, crop_pct: true}", ".crop_pct: must be a number above 0"),
        ("{name: w, source: timm, interpolation: cubic}", ".interpolation: must be one of nearest, bilinear, bicubic"),
        ("{name: w, source: timm, labels: [1]}", ".labels: must be a list of texts"),
        ("{name: w, source: timm, num_classes: 3, labels: [a, b]}", ".labels: 2 names for 3 classes"),
        ("{name: w, source: timm, model_args: [1]}", ".model_args: must be a mapping"),
        ("{name: w, source: timm, licence: mit}", ".licence: unknown key"),
        ("{name: w, source: timm}, {name: w, source: timm}", ".weights: 'w' is given more than once"),
    ],
)
def test_each_fault_of_a_weights_record(tmp_path, weights, fault):
    text = faults(tmp_path, f"{ROW}  - {{name: a, arch: a, params: 1, input: 1, weights: [{weights}]}}\n")
    assert "has 1 fault(s)" in text
    assert fault in text


@pytest.mark.parametrize("name", ["all", "head-1", "", "layer 1"])
def test_a_group_name_that_a_recipe_could_not_name_is_a_fault(tmp_path, name):
    groups = f"[{{name: '{name}', match: a}}, {{name: head, match: b}}]"
    text = faults(
        tmp_path,
        f"api: 1\nname: fir\ngroups: {groups}\nbackbones: [{{name: a, arch: a, params: 1, input: 1}}]\n",
    )
    assert f"groups[0].name: {name!r} cannot name a layer group" in text


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("- 1", "zoo.yaml must hold a mapping\n  why: it holds list"),
        ("", "zoo.yaml must hold a mapping\n  why: it holds NoneType"),
        ("api: 1\nname: fir\n", "backbones: at least one is needed (or `dynamic: timm`)"),
        ("api: 1\nname: fir\nbackbones: 3\n", "backbones: must be a list"),
        ("api: 1\nname: fir\ndynamic: torchvision\n", "dynamic: must be 'timm', not 'torchvision'"),
        ("api: 1\nname: fir\nsummary: 3\ndynamic: timm\n", "summary: must be a text"),
        (f"{ROW}  - {{name: a, arch: a, params: 1, input: 1, groups: []}}", "(a): no layer groups, neither its own"),
        (f"{ROW}  - {{name: a.b, arch: a, params: 1, input: 1}}", "'a.b' has characters that a name cannot have"),
    ],
)
def test_a_wrong_shape_is_told(tmp_path, text, fault):
    assert fault in faults(tmp_path, text)


def test_a_newer_contract_says_upgrade_and_nothing_about_its_unknown_keys(tmp_path):
    with pytest.raises(ManifestError) as caught:
        read(tmp_path, f"api: {API + 1}\nname: fir\nnovelty: true\n")
    assert str(caught.value) == (
        f"the manifest asks for plugin api {API + 1}, this adaptzoo reads up to {API}\n"
        "  fix: upgrade adaptzoo: pip install --upgrade adaptzoo"
    )


# Each of these made PyYAML raise something that is no YAMLError.
@pytest.mark.parametrize("text", ["a: [", "a: 2020-13-45", "a: !!int ''", "a: !!timestamp x", "\x00", "[" * 5000])
def test_what_is_not_yaml_is_one_line(tmp_path, text):
    file = tmp_path / "zoo.yaml"
    file.write_text(text)
    with pytest.raises(ManifestError, match=r"zoo\.yaml is not valid YAML") as caught:
        read_yaml(file)
    assert "\n" not in caught.value.why and caught.value.why


def test_what_is_not_text_or_not_there(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9")
    with pytest.raises(ManifestError, match=r"latin\.yaml is not valid YAML"):
        read_yaml(tmp_path / "latin.yaml")
    with pytest.raises(ManifestError, match=r"cannot read .*gone\.yaml\n  why: No such file"):
        read_yaml(tmp_path / "gone.yaml")


def test_python_objects_are_never_built(tmp_path):
    (tmp_path / "zoo.yaml").write_text("a: !!python/object/apply:os.system ['exit 1']")
    with pytest.raises(ManifestError, match="could not determine a constructor"):
        read_yaml(tmp_path / "zoo.yaml")


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("1E+2", 100.0), ("-2.e1", -20.0), ("1", 1), ("0.5", 0.5), ("e3", "e3")]
)
def test_numbers_are_read_as_people_write_them(text, value):
    read = parse_yaml(f"x: {text}")["x"]
    assert read == value and type(read) is type(value)
