"""The report: a comparison as one HTML file."""

from hybridsearch.evaluation.report.page import render, write_html

__all__ = ["render", "write_html"]
