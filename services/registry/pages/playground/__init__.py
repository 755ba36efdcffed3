"""Pages that ask versions of a model side by side, and take a vote on their answers."""
