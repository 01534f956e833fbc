"""What an index holds: documents as the bulk API has them, and what the index says of itself."""
