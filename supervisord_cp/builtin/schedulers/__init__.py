"""When a request goes: what orders those that wait."""
