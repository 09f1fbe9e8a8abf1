"""Where a replica goes."""
