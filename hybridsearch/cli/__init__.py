"""The command line program `hybridsearch`. Each module here adds its verbs to `app`."""

from hybridsearch.cli import calibrating as calibrating
from hybridsearch.cli import checking as checking
from hybridsearch.cli import copying as copying
from hybridsearch.cli import documents as documents
from hybridsearch.cli import evaluation as evaluation
from hybridsearch.cli import indexing as indexing
from hybridsearch.cli import mining as mining
from hybridsearch.cli import optimizing as optimizing
from hybridsearch.cli import recalling as recalling
from hybridsearch.cli import search as search
from hybridsearch.cli import serving as serving
from hybridsearch.cli import training as training
from hybridsearch.cli import tuning as tuning
from hybridsearch.cli.app import app as app
from hybridsearch.cli.app import main as main
