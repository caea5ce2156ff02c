"""One module per command; each has the click command as ``command``. Imported only when it is asked for."""
