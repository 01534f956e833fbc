"""Measuring retrieval: data sets, measures, statistics, experiments, tuning and the report."""
