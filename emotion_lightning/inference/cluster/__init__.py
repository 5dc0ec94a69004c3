"""Label on several processes or machines with Ray (the extra `ray`)."""
