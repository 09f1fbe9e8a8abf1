"""Rules and queries on a real Prometheus."""
