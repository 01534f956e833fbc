"""Training data: rows of texts with their kind, read from files, folders, databases, data sets or Python objects."""

from hybridsearch.training.data.read import is_retrieval as is_retrieval
from hybridsearch.training.data.read import read_training_data as read_training_data
from hybridsearch.training.data.rows import Kind as Kind
from hybridsearch.training.data.rows import TrainingData as TrainingData
from hybridsearch.training.data.rows import normalized as normalized
from hybridsearch.training.data.splitting import split as split
from hybridsearch.training.data.splitting import with_queries as with_queries
