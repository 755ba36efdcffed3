"""Administration of Kafka: topics and ACLs. Clients that produce and consume belong to `shared`."""
