"""The router beside other relays: tools, peers, measurements, the table."""
