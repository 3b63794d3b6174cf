"""The page of one pruning job: its records, what they say, and the parts of its page."""
