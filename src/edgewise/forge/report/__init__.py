"""What a run found, for people: figures as words, and one self-contained page."""
