"""The Hub's look at a README's metadata: the faults that it names, in its words."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.hub.views import card_data

_LICENSES = """
afl-3.0 agpl-3.0 apache-2.0 apple-amlr artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0 bsd
bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0
cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0
epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 fair-noncommercial-research-license gemma gfdl gpl gpl-2.0
gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c
mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openmdw-1.0 openrail openrail++ osl-3.0 other pddl
postgresql unknown unlicense wtfpl zlib
"""
LICENSES = frozenset(_LICENSES.split())


def check(text: str) -> tuple[list[str], list[str]]:
    """The errors and the warnings that a README gets."""
    try:
        card = card_data(text)
    except yaml.YAMLError as error:
        return [f"YAML Metadata Error: {error}".replace("\n", " ")], []
    if card is None:
        return [], ["empty or missing yaml metadata in repo card"]
    if not isinstance(card, dict):
        return ["YAML Metadata Error: the metadata must be a mapping"], []
    errors = _licenses(card) + _base_models(card) + _lists(card)
    for number, model in enumerate(card.get("model-index") or []):
        errors += _results(f"model-index[{number}]", model)
    return errors, []


def _licenses(card: dict[str, Any]) -> list[str]:
    if "license" not in card:
        return []
    listed = card["license"] if isinstance(card["license"], list) else [card["license"]]
    wrong = [license for license in listed if license not in LICENSES]
    return [f'"license" must be one of [{", ".join(sorted(LICENSES))}]'] if wrong else []


def _base_models(card: dict[str, Any]) -> list[str]:
    value = card.get("base_model") or []
    return [
        f'"base_model" with value "{model}" is not valid. Use a HF model id.'
        for model in (value if isinstance(value, list) else [value])
        if not re.fullmatch(r"[\w.\-]+(?:/[\w.\-]+)?", str(model))
    ]


def _lists(card: dict[str, Any]) -> list[str]:
    wanted = {"tags": list, "datasets": (list, str), "metrics": (list, str), "pipeline_tag": str, "library_name": str}
    return [
        f'"{key}" must be {"a string" if kind is str else "an array"}'
        for key, kind in wanted.items()
        if key in card and not isinstance(card[key], kind)
    ]


def _results(place: str, model: dict[str, Any]) -> list[str]:
    """What an entry of the model index lacks."""
    missing = [] if model.get("name") else [f"{place}.name"]
    if not isinstance(model.get("results"), list):
        return [f'"{where}" is required' for where in [*missing, f"{place}.results"]]
    for number, result in enumerate(model["results"]):
        at = f"{place}.results[{number}]"
        needed = {"task": ("type",), "dataset": ("type", "name")}
        missing += [f"{at}.{key}.{name}" for key in needed for name in needed[key] if not result.get(key, {}).get(name)]
        for metric_number, metric in enumerate(result.get("metrics") or []):
            missing += [
                f"{at}.metrics[{metric_number}].{name}" for name in ("type", "value") if metric.get(name) is None
            ]
        if not result.get("metrics"):
            missing.append(f"{at}.metrics")
    return [f'"{where}" is required' for where in missing]
