"""Which delivery network a session goes over: its expected quality on each, a policy that explores, and its judge.

quality      a session's quality score on each network, by LightGBM
policy       from expected qualities to probabilities, which are logged
degradation  networks that got worse within minutes, told from the last sessions
off_policy   what a policy would have earned, from the log of another
gate         whether it may be published
"""
