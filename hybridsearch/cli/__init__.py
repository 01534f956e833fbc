"""The program `hybridsearch`: `app` with its verbs, which their modules add to it."""

from hybridsearch.cli import evaluation as evaluation
from hybridsearch.cli import search as search
from hybridsearch.cli import training as training
from hybridsearch.cli.app import app as app
from hybridsearch.cli.app import main as main
