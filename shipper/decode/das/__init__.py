"""Records of Database Activity Streams: envelope, wrapping key, encrypted message, gzip, JSON, engines' dialects."""
