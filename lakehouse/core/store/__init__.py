"""Places: where tables and files are, in a folder or an object store, and how they are written, locked and checked there."""
