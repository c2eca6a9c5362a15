"""The sequential recommender: from the titles a viewer finished to the title that comes next."""
