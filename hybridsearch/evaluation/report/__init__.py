"""A comparison as one HTML file that people like to look at."""

from hybridsearch.evaluation.report.page import render, write_html

__all__ = ["render", "write_html"]
