"""What ingest is measured against: the floor, a per-message consumer, and Spark's structured streaming."""
