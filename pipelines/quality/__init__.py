"""Quality of the data: the seven checks of spec 11.1, their results as a table, a page and metrics."""
