"""Features: what is declared once, and right at every instant (pure: no Ray, no Kafka, no clocks)."""
