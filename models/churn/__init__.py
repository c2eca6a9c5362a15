"""Churn: which active subscribers will cancel within thirty days, how likely, and why."""
