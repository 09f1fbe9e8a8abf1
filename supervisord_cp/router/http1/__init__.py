"""HTTP/1.1 as bytes: heads, header fields and body framing. Strict, without I/O."""
