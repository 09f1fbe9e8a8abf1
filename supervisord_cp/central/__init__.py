"""The central daemon: learns the fleet from agents, decides, publishes desired state and snapshots."""
