"""A run on disk: folders and files that appear whole, the writer of traces, the manifest."""
