"""Review: from the flags of a night to people's verdicts, and back into the detector.

`asking` chooses what is asked, `questions` keeps it, `preview` shows it, `queue` asks it in MLflow, `answers` reads
what people say, and `verdicts` keeps that. `heeding` says what verdicts do to a night, by `bars` and `look_alikes`, and
`counting` how many flags were right, and how many anomalies are missed.
"""
