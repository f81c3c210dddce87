"""The page itself."""

from __future__ import annotations

from microrisk.evaluate.report_data import Report


def page(report: Report) -> str:
    """HTML of the whole report."""
    return f"<!doctype html><meta charset='utf-8'><title>{report.title}</title>"
