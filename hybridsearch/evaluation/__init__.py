"""Measuring search: data sets, measures, statistics, comparisons, tuning and the report."""
