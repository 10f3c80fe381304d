"""The command line: one thin file per verb. What is heavy is imported when a verb runs."""
