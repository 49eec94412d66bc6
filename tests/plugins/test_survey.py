"""docs/timm-support.md says what is true of the installed timm."""

from __future__ import annotations

import pytest
import timm

from tests.plugins.survey_timm import DOC, render, survey


@pytest.mark.heavy
def test_the_page_about_timm_is_current() -> None:
    page = DOC.read_text(encoding="utf-8")
    if f"timm {timm.__version__} has" not in page:
        pytest.skip("the page is about another version of timm; run python -m tests.plugins.survey_timm")
    assert render(survey()) == page
