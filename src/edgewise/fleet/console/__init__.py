"""The console: a page of plain HTML, CSS and ES modules that reads the API with the visitor's own token."""
