"""The page that shows what a run did: `report.html` in its folder."""

from __future__ import annotations

from zoo.runs.report.page import write_report

__all__ = ["write_report"]
