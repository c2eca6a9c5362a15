"""The ranker: of the titles that could be shown now, which would be watched past the half."""
