"""What an evaluation is made of: its questions, metrics and baselines, and what it found as table, JSON, picture.

Running a network on the questions is `gqn_model.evaluation`. Pictures that show frames are in `showing`.
Floor: above `config` and `inputs`, below `evaluation`. Imports those two and `network`.
"""
