"""The loop: reads, decodes, routes, batches, sends, retries and settles. Owns everything that is not a protocol."""
