"""Statistics and drift of features: computed by day, kept in Iceberg, shown as a page."""
