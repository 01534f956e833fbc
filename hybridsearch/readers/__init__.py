"""Readers give the documents of files, of tables in memory and of iterables, as a stream.

Each module reads some formats. `formats.py` has the table of all formats, and finds the files of a folder.
"""

from hybridsearch.readers.pages import pages_of as pages_of
from hybridsearch.readers.read import DocumentReader as DocumentReader
from hybridsearch.readers.read import SkippedLine as SkippedLine
from hybridsearch.readers.read import Table as Table
from hybridsearch.readers.read import read_documents as read_documents
from hybridsearch.readers.tables import LONGEST_CSV_FIELD as LONGEST_CSV_FIELD
