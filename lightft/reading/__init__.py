"""From a text to the rows a model reads, and from its scores to the answer, without any deep-learning library."""
