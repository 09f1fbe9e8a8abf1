"""`supervisord-cp doctor`: looks at a host and says what is wrong with it, and what to do."""
