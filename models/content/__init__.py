"""The content-based recommender: titles that nobody has watched yet, by what is written of them."""
