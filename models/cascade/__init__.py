"""The recommender as it is served: retrieve, rank, diversify.

Order of reading: `catalogue`, `diversity`, `cascade`, `folder`, `pyfunc`. The term is the field's: cascade ranking
(Wang, Lin & Metzler, "A cascade ranking model for efficient ranked retrieval", SIGIR 2011).
"""
