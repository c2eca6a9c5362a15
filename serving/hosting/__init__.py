"""Models at work: each found by alias in MLflow, followed when the alias moves, and asked in processes of their own.

questions    what travels between the processes that answer HTTP and those that run models
registry     MLflow, as far as the service reads it
followed     one alias of one model: the version it names, loaded
servables    how each model is loaded and asked
title_numbers  what the cascade's ranker is told of titles, as of now
host         the process that runs models
client       the way to it
"""
