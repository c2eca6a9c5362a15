"""The event log: Kafka, the embedded log that stands in for it, and offsets between the two and the lakehouse."""
