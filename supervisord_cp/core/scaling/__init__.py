"""How many replicas, and where: proposals, the envelope that limits them, placement, reconciliation."""
