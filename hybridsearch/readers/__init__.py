"""Documents from files, tables in memory and iterables; streamed, one at a time.

A module reads a family of formats; `read.py` has the table of formats and finds the files.
"""

from hybridsearch.readers.read import DocumentReader as DocumentReader
from hybridsearch.readers.read import SkippedLine as SkippedLine
from hybridsearch.readers.read import Table as Table
from hybridsearch.readers.read import read_documents as read_documents
from hybridsearch.readers.tables import LONGEST_CSV_FIELD as LONGEST_CSV_FIELD
