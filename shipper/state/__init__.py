"""One SQLite file: positions, bookmarks, dead letters and the books, so that one transaction can move them together."""
