"""The status page: one document, live by server-sent events, with an operator's login."""
