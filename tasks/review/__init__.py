"""Review: from the flags of a night to people's verdicts, and back into the detector.

`asking` chooses what is asked, `questions` and `queue` ask it in MLflow and read the answers, `verdicts` keeps them,
`heeding` says what they do to a night, and `counting` how many flags were right, and how many anomalies are missed.
"""
