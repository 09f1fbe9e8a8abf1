"""The keeper and the back ends that start keepers, with real processes."""
