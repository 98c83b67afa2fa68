"""Claims as data: a statistic, its interval, a rule, and the verdict that follows."""
