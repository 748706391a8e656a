"""Delta tables: an opened snapshot, what is staged against it, and the one commit that makes it visible."""
