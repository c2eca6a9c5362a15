"""Stream features: event groups kept up to date from Kafka, from an event to a served value in under a second."""
