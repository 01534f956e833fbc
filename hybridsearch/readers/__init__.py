"""Documents from files: JSON lines, CSV, Parquet, BEIR folders, folders of text files; streamed, one at a time."""

from hybridsearch.readers.text import LONGEST_CSV_FIELD as LONGEST_CSV_FIELD
from hybridsearch.readers.text import DocumentReader as DocumentReader
from hybridsearch.readers.text import SkippedLine as SkippedLine
from hybridsearch.readers.text import read_documents as read_documents
