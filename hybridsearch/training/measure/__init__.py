"""Measure and compare models, and report the result of a run."""
