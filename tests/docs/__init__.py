"""The documentation: its examples run, its facts are the code's, its links lead somewhere."""
